"""Keys that verify tokens: a fixed one, or a JSON Web Key Set (RFC 7517) that is fetched, cached and refreshed."""

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from bff.errors import UpstreamFailure, UpstreamUnavailable, detached

FRESH_SECONDS: Final = 600.0
"""Maximum cache age; a revoked key is accepted until then."""
STALE_SECONDS: Final = 24 * 3600.0
"""Maximum cache age while the key set cannot be fetched."""
REFETCH_SECONDS: Final = 10.0
"""Minimum interval between two fetches: tokens with made-up key ids must not cause a fetch each."""
WAIT_SECONDS: Final = 15.0
"""Maximum wait for a fetch that another request has started."""

Key = TypeVar("Key")
FoundKey = TypeVar("FoundKey", covariant=True)


class Keys(Protocol[FoundKey]):
    def find(self, key_id: str) -> FoundKey | None:
        """None if there is no such key. Raises UpstreamUnavailable if the keys could not be fetched."""


class FixedKey(Generic[Key]):
    """One key for every key id."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def find(self, key_id: str) -> Key | None:
        return self._key


class JWKSCache(Generic[Key]):
    """`fetch` returns all keys by key id; it raises UpstreamFailure."""

    def __init__(self, fetch: Callable[[], Mapping[str, Key]], clock: Callable[[], float] = monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fetch_lock = threading.Lock()
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = self._attempted_at = -STALE_SECONDS
        self._error: UpstreamFailure | None = None

    def find(self, key_id: str) -> Key | None:
        """An empty `key_id` finds the key if there is only one."""
        key = self._cached(key_id)
        if key is None or self._clock() >= self._fetched_at + FRESH_SECONDS:
            # A request whose key is cached does not wait for a refresh that another request has started.
            self._refresh(WAIT_SECONDS if key is None else 0)
            key = self._cached(key_id)
        if key is None and self._error is not None:
            raise UpstreamUnavailable(
                "Your identity cannot be verified right now. Please try again.", detail=self._error.detail
            )
        return key

    def _cached(self, key_id: str) -> Key | None:
        if self._clock() >= self._fetched_at + STALE_SECONDS:
            return None
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _refresh(self, wait_seconds: float) -> None:
        if not self._fetch_lock.acquire(timeout=wait_seconds):
            return
        try:
            if self._clock() < self._attempted_at + REFETCH_SECONDS:
                return
            self._attempted_at = self._clock()
            self._keys, self._error = self._fetch(), None
            self._fetched_at = self._clock()
        except UpstreamFailure as error:
            self._error = detached(error)
        finally:
            self._fetch_lock.release()
