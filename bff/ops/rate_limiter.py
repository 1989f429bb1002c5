"""Limits the messages of a user per minute."""

import math
import threading
from collections import OrderedDict, deque
from time import monotonic
from typing import TYPE_CHECKING, Final

from bff.errors import TooManyRequests

if TYPE_CHECKING:
    from bff.ops.redis_limits import RedisLimits  # Imports redis-py, which only some processes need.

MINUTE: Final = 60.0


class RateLimiter:
    """A sliding window per user: in memory, and in Redis if `shared` is given."""

    def __init__(self, per_minute: int, shared: "RedisLimits | None" = None) -> None:
        self._per_minute = per_minute
        self._shared = shared
        self._lock = threading.Lock()
        self._by_user: OrderedDict[str, deque[float]] = OrderedDict()

    def acquire(self, user_id: str) -> None:
        """Raises TooManyRequests with `retry_after`. A refused request does not count."""
        if self._shared:
            with self._lock:
                self._window(user_id, monotonic())
            self._shared.acquire(user_id)
        with self._lock:
            now = monotonic()
            self._by_user[user_id] = times = self._window(user_id, now)
            self._by_user.move_to_end(user_id)
            times.append(now)

    def _window(self, user_id: str, now: float) -> deque[float]:
        """The times (monotonic) of the user's requests in the last minute. Raises TooManyRequests if they are too many."""
        self._drop_idle_users(now - MINUTE)
        times = self._by_user.get(user_id, deque())
        while times and times[0] <= now - MINUTE:
            times.popleft()
        if len(times) >= self._per_minute:
            raise TooManyRequests(retry_after=math.ceil(times[0] + MINUTE - now))
        return times

    def _drop_idle_users(self, before: float) -> None:
        """The dictionary is ordered by the users' last requests."""
        while self._by_user and next(iter(self._by_user.values()))[-1] <= before:
            self._by_user.popitem(last=False)
