"""One user's limits over all processes: what `rate.py` and `streams.py` count in one of them, counted in Redis.

While Redis is away each process counts for itself: a limit is no reason to refuse what could be answered.
"""

import logging
import math
import secrets
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from bff.errors import ServerFull, StorageUnavailable, TooManyRequests
from bff.http.streams import MANY_STREAMS
from bff.ops.redis import Client, Scripts, key_of, keys_of

GIVEN_UP_SECONDS: Final = 30.0
"""After which the streams of a process that was killed count no more."""

AWAY_SECONDS: Final = 2.0
"""For which a Redis that did not answer is not asked: each question would take its whole patience."""

log = logging.getLogger(__name__)


class RedisLimits:
    def __init__(self, client: Client, *, streams: int, per_minute: int) -> None:
        self._streams = streams
        self._per_minute = per_minute
        self._scripts = Scripts(client, Path(__file__).parent / "lua")
        self._lock = threading.Lock()
        self._open: defaultdict[str, set[str]] = defaultdict(set)
        self._renewing = False
        self._ask_at = 0.0

    def acquire(self, user_id: str) -> None:
        """Raises TooManyRequests, with the seconds until there is room again."""
        wait = self._ask("count", f"{keys_of(key_of(user_id))}minute", self._per_minute, secrets.token_hex(8))
        if wait:
            raise TooManyRequests(retry_after=math.ceil(wait / 1_000_000))

    def acquire_stream(self, user_id: str) -> str:
        """The stream's name, to leave with. Raises TooManyRequests."""
        stream = secrets.token_hex(8)
        if self._ask("enter", _streams(user_id), self._streams, _MILLISECONDS, stream) == 0:
            raise TooManyRequests(MANY_STREAMS)
        with self._lock:
            if not self._renewing:
                threading.Thread(target=self._renew, name="limits", daemon=True).start()
                self._renewing = True
            self._open[user_id].add(stream)
        return stream

    def release_stream(self, user_id: str, stream: str) -> None:
        with self._lock:
            self._open[user_id].discard(stream)
            if not self._open[user_id]:
                del self._open[user_id]
        self._ask("leave", _streams(user_id), stream)

    def _renew(self) -> None:
        while True:
            time.sleep(GIVEN_UP_SECONDS / 3)
            for user_id in tuple(self._open):
                try:
                    self._renew_those_of(user_id)
                except Exception:
                    log.exception("a user's streams could not be renewed")

    def _renew_those_of(self, user_id: str) -> None:
        with self._lock:
            streams = tuple(self._open.get(user_id, ()))
        if streams:
            self._ask("renew", _streams(user_id), _MILLISECONDS, *streams)

    def _ask(self, script: str, key: str, *arguments: str | int) -> Any:
        """None while Redis is away, or full."""
        if time.monotonic() < self._ask_at:
            return None
        try:
            return self._scripts.run(script, [key], *arguments)
        except (StorageUnavailable, ServerFull):
            log.debug("a limit could not be counted", exc_info=True)
            self._ask_at = time.monotonic() + AWAY_SECONDS
            return None


_MILLISECONDS: Final = int(GIVEN_UP_SECONDS * 1000)


def _streams(user_id: str) -> str:
    return f"{keys_of(key_of(user_id))}streams"
