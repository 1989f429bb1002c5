"""A user's limits across all processes, counted in Redis. RateLimiter and StreamLimiter count those of one process.

While Redis is unavailable only the limits of each process apply: requests are not refused for that.
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
from bff.http.streams import TOO_MANY_STREAMS
from bff.ops.redis import Client
from bff.ops.redis_keys import DEFAULT_PREFIX, Keys, hash_user_id
from bff.ops.redis_scripts import Scripts

STREAM_TTL_SECONDS: Final = 30.0
"""Streams of a killed process are no longer counted after this time."""

BACKOFF_SECONDS: Final = 2.0
"""After an error Redis is not called for this time, as each call could block until its timeout."""

log = logging.getLogger(__name__)


class RedisLimits:
    def __init__(self, client: Client, *, streams: int, per_minute: int, prefix: str = DEFAULT_PREFIX) -> None:
        self._keys = Keys(prefix)
        self._streams = streams
        self._per_minute = per_minute
        self._scripts = Scripts(client, Path(__file__).parent / "lua")
        self._lock = threading.Lock()
        self._open_streams: defaultdict[str, set[str]] = defaultdict(set)
        self._renewing = False
        self._retry_at = 0.0

    def acquire(self, user_id: str) -> None:
        """Raises TooManyRequests with `retry_after`."""
        wait_us = self._run("acquire", self._key(user_id, "minute"), self._per_minute, secrets.token_hex(8))
        if wait_us:
            raise TooManyRequests(retry_after=math.ceil(wait_us / 1_000_000))

    def acquire_stream(self, user_id: str) -> str:
        """Returns an id for `release_stream`. Raises TooManyRequests."""
        stream = secrets.token_hex(8)
        if self._run("acquire_stream", self._key(user_id, "streams"), self._streams, _STREAM_TTL_MS, stream) == 0:
            raise TooManyRequests(TOO_MANY_STREAMS)
        with self._lock:
            if not self._renewing:
                threading.Thread(target=self._renew, name="limits", daemon=True).start()
                self._renewing = True
            self._open_streams[user_id].add(stream)
        return stream

    def release_stream(self, user_id: str, stream: str) -> None:
        with self._lock:
            self._open_streams[user_id].discard(stream)
            if not self._open_streams[user_id]:
                del self._open_streams[user_id]
        self._run("release_stream", self._key(user_id, "streams"), stream)

    def _renew(self) -> None:
        while True:
            time.sleep(STREAM_TTL_SECONDS / 3)
            for user_id in tuple(self._open_streams):
                try:
                    self._renew_user(user_id)
                except Exception:
                    log.exception("a user's streams could not be renewed")

    def _renew_user(self, user_id: str) -> None:
        with self._lock:
            streams = tuple(self._open_streams.get(user_id, ()))
        if streams:
            self._run("renew_streams", self._key(user_id, "streams"), _STREAM_TTL_MS, *streams)

    def _key(self, user_id: str, name: str) -> str:
        return self._keys.tagged(hash_user_id(user_id), name)

    def _run(self, script: str, key: str, *arguments: str | int) -> Any:
        """Returns None while Redis is unavailable or full."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            return self._scripts.run(script, [key], *arguments)
        except (StorageUnavailable, ServerFull):
            log.debug("a limit could not be counted", exc_info=True)
            self._retry_at = time.monotonic() + BACKOFF_SECONDS
            return None


_STREAM_TTL_MS: Final = int(STREAM_TTL_SECONDS * 1000)
