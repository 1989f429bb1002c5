"""Publishes which messages have readers in this process: one with `cancel_on_disconnect` is cancelled once none is left."""

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bff.broker.queue.redis.keys import PARTS, by_part, part_of
from bff.errors import ServerFull, StorageUnavailable
from bff.ops.redis import Client, is_cluster, map_errors
from bff.ops.redis_keys import Keys
from bff.ops.redis_scripts import Scripts

PUBLISH_SECONDS: Final = 1.0
READERS_TTL_MILLISECONDS: Final = 60_000
"""Lifetime of the key of a message's readers; much longer than their grace."""
MAX_EXPIRED: Final = 100
"""Messages without readers that one sweep cancels, of each part."""

log = logging.getLogger(__name__)


class Presence:
    """Members are named "<group> <message id>"."""

    def __init__(self, client: Client, grace: float, keys: Keys) -> None:
        """`grace`: seconds without a reader after which a message is cancelled."""
        self.process = secrets.token_hex(8)
        """Identifies this process among those with readers of a message."""
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, Path(__file__).parent / "lua" / "presence")
        self._grace = str(int(grace * 1_000_000))
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()
        self._thread_started = False
        self._closed = threading.Event()
        self._any_to_cancel = False
        """Whether there are messages to cancel on disconnect. Mostly there are none, and nothing is published."""
        self._unmoved = False
        """Whether there may be such messages of an earlier version, which had one key for them."""

    def key(self, part: int) -> str:
        """Messages to cancel on disconnect, by when to cancel them unless a process reports a reader before."""
        return self._keys.tagged(str(part), "fleeting")

    def expect(self, member: str) -> None:
        """Adds a message that is to be cancelled on disconnect. Raises StorageUnavailable, ServerFull."""
        self._any_to_cancel = True
        self._scripts.run("extend", [self.key(part_of(member))], self._grace, "NX", member)

    def has_readers(self, member: str) -> bool:
        """Whether it has readers in this process."""
        return member in self._readers

    @contextmanager
    def reading(self, member: str, *, publish: bool = False) -> Iterator[None]:
        """Counts a reader. Its member is published first if there are messages to cancel, which may be known a second late.

        `publish`: without knowing that.
        """
        with self._lock:
            if not self._thread_started:
                threading.Thread(target=self._run, name="readers", daemon=True).start()
                self._thread_started = True
            self._readers[member] += 1
        try:
            if publish or self._any_to_cancel:
                self._publish(member)
            yield
        finally:
            with self._lock:
                self._readers[member] -= 1
                if not self._readers[member]:
                    del self._readers[member]

    def _run(self) -> None:
        """Publishes periodically, also in a process without a worker, which does not sweep."""
        while not self._closed.wait(PUBLISH_SECONDS):
            try:
                if self._readers:
                    self._publish_all()
            except (StorageUnavailable, ServerFull):
                log.debug("cannot publish readers", exc_info=True)
            except Exception:
                log.exception("cannot publish readers")

    def _publish_all(self) -> None:
        keys = [self.key(part) for part in range(PARTS)]
        with map_errors():
            self._unmoved = not is_cluster(self._client) and bool(self._client.exists(self._keys.name("fleeting")))
            self._any_to_cancel = self._unmoved or bool(self._client.exists(*keys))
        with self._lock:
            members = tuple(self._readers)
        if self._any_to_cancel:
            self._publish(*members)

    def _publish(self, *members: str) -> None:
        """Publishes, of those members that are to be cancelled on disconnect, that they have readers in this process."""
        for part, of_part in by_part(members):
            for key in self._keys_of(part):
                deadline, *to_cancel = self._scripts.run("extend", [key], self._grace, "XX", *of_part)
                for member in to_cancel:
                    group, message_id = member.split(" ", 1)
                    readers = self._keys.tagged(group, f"r:{message_id}")
                    self._scripts.run("publish", [readers], self.process, deadline, READERS_TTL_MILLISECONDS)

    def unread(self) -> list[str]:
        """Returns members without readers for the grace period, until they are forgotten. Raises as `expect`."""
        self._publish_all()
        if not self._any_to_cancel:
            return []
        keys = {key: None for part in range(PARTS) for key in self._keys_of(part)}
        return [member for key in keys for member in self._scripts.run("expired", [key], MAX_EXPIRED)]

    def forget(self, member: str) -> None:
        """Removes a member that was cancelled, or is no longer to be. Raises StorageUnavailable."""
        with map_errors():
            for key in self._keys_of(part_of(member)):
                self._client.zrem(key, member)

    def _keys_of(self, part: int) -> list[str]:
        return [self.key(part), self._keys.name("fleeting")] if self._unmoved else [self.key(part)]

    def close(self) -> None:
        self._closed.set()
