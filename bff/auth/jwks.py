"""Keys that are fetched from elsewhere: kept for a while, never asked for more often than every few seconds."""

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from bff.errors import UpstreamFailure, UpstreamUnavailable, detached

FRESH_SECONDS: Final = 600.0
"""How long a key that was withdrawn is still believed."""
STALE_SECONDS: Final = 24 * 3600.0
"""The same, while nobody can be asked."""
PAUSE_SECONDS: Final = 10.0
"""Between two fetches: whoever makes up a key's name must not make us ask for it each time."""
WAIT_SECONDS: Final = 15.0
"""For somebody else's fetch."""

Key = TypeVar("Key")
Found = TypeVar("Found", covariant=True)


class Keys(Protocol[Found]):
    def find(self, name: str) -> Found | None:
        """None where there is none of that name. Raises UpstreamUnavailable where nobody can tell."""


class FixedKey(Generic[Key]):
    """One key, whatever name it is asked for by."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def find(self, name: str) -> Key | None:
        return self._key


class JWKSCache(Generic[Key]):
    """`fetch` gives all keys by name, and raises an UpstreamFailure when it cannot."""

    def __init__(self, fetch: Callable[[], Mapping[str, Key]], clock: Callable[[], float] = monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fetching = threading.Lock()
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = self._asked_at = -STALE_SECONDS
        self._problem: UpstreamFailure | None = None

    def find(self, name: str) -> Key | None:
        """No name finds the only key there is."""
        key = self._named(name)
        if key is None or self._clock() >= self._fetched_at + FRESH_SECONDS:
            # Whoever has a key goes on with it while somebody else fetches.
            self._refresh(WAIT_SECONDS if key is None else 0)
            key = self._named(name)
        if key is None and self._problem is not None:
            raise UpstreamUnavailable("Nobody can check who you are just now. Please try again.", detail=self._problem.detail)
        return key

    def _named(self, name: str) -> Key | None:
        if self._clock() >= self._fetched_at + STALE_SECONDS:
            return None
        if not name and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _refresh(self, wait: float) -> None:
        if not self._fetching.acquire(timeout=wait):
            return
        try:
            if self._clock() < self._asked_at + PAUSE_SECONDS:
                return
            self._asked_at = self._clock()
            self._keys, self._problem = self._fetch(), None
            self._fetched_at = self._clock()
        except UpstreamFailure as problem:
            self._problem = detached(problem)
        finally:
            self._fetching.release()
