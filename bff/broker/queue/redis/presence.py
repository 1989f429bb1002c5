"""Who reads in this process, told to Redis: an answer that is for its readers only is stopped once none is left anywhere."""

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bff.errors import ServerFull, StorageUnavailable
from bff.ops.redis import Client, Scripts, keys_of, map_errors

FLEETING: Final = "chat:fleeting"
"""Those answers, each by when it is to be stopped unless somebody says that it is still read."""
TELL_SECONDS: Final = 1.0
GONE_MILLISECONDS: Final = 60_000
"""After which what was told of an answer's readers goes; long after its grace."""
MOST: Final = 100
"""Of those nobody reads any more, at once."""

log = logging.getLogger(__name__)


class Presence:
    """Answers are named "<group> <message id>"."""

    def __init__(self, client: Client, grace: float) -> None:
        """`grace`: seconds without a reader."""
        self.process = secrets.token_hex(8)
        """What this process is called among those that have readers of an answer."""
        self._client = client
        self._scripts = Scripts(client, Path(__file__).parent / "lua" / "fleeting")
        self._grace = str(int(grace * 1_000_000))
        self._lock = threading.Lock()
        self._here: Counter[str] = Counter()
        self._telling = False
        self._closed = threading.Event()
        self._some_are_fleeting = False
        """Mostly none is, and then there is nothing to tell."""

    def expect(self, answer: str) -> None:
        """A new one that is for its readers only, or may become one. Raises Away, ServerFull."""
        self._some_are_fleeting = True
        self._scripts.run("read_by", [FLEETING], self._grace, "NX", answer)

    def has(self, answer: str) -> bool:
        """Whether it has readers in this process."""
        return answer in self._here

    @contextmanager
    def reading(self, answer: str) -> Iterator[None]:
        with self._lock:
            if not self._telling:
                threading.Thread(target=self._tell_again_and_again, name="readers", daemon=True).start()
                self._telling = True
            self._here[answer] += 1
        try:
            if self._some_are_fleeting:
                self._tell_of(answer)
            yield
        finally:
            with self._lock:
                self._here[answer] -= 1
                if not self._here[answer]:
                    del self._here[answer]

    def _tell_again_and_again(self) -> None:
        """Whether or not somebody sweeps in this process: those who read here are there."""
        while not self._closed.wait(TELL_SECONDS):
            try:
                if self._here:
                    self._tell()
            except (StorageUnavailable, ServerFull):
                log.debug("readers could not be told of", exc_info=True)
            except Exception:
                log.exception("readers could not be told of")

    def _tell(self) -> None:
        with map_errors():
            self._some_are_fleeting = bool(self._client.exists(FLEETING))
        with self._lock:
            here = tuple(self._here)
        if self._some_are_fleeting:
            self._tell_of(*here)

    def _tell_of(self, *answers: str) -> None:
        """That those of `answers` that are fleeting have readers in this process."""
        till, *fleeting = self._scripts.run("read_by", [FLEETING], self._grace, "XX", *answers)
        if not fleeting:
            return
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            for answer in fleeting:
                group, message_id = answer.split(" ", 1)
                readers = f"{keys_of(group)}r:{message_id}"
                pipe.zadd(readers, {self.process: till})
                pipe.pexpire(readers, GONE_MILLISECONDS)
            pipe.execute()

    def unread(self) -> list[str]:
        """The answers that nobody has read for a grace, until each is forgotten. Raises Away, ServerFull."""
        self._tell()
        return list(self._scripts.run("unread", [FLEETING], MOST)) if self._some_are_fleeting else []

    def forget(self, answer: str) -> None:
        """One that was stopped. Raises Away."""
        with map_errors():
            self._client.zrem(FLEETING, answer)

    def close(self) -> None:
        self._closed.set()
