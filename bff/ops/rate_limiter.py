"""How often a user may ask: so many times a minute."""

import math
import threading
from collections import OrderedDict, deque
from time import monotonic
from typing import TYPE_CHECKING, Final

from bff.errors import TooManyRequests

if TYPE_CHECKING:
    from bff.ops.redis_limits import RedisLimits  # Which brings Redis's library: for those who use it.

MINUTE: Final = 60.0


class RateLimiter:
    """At most so many a minute for each user."""

    def __init__(self, per_minute: int, shared: "RedisLimits | None" = None) -> None:
        self._per_minute = per_minute
        self._shared = shared
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()

    def acquire(self, user_id: str) -> None:
        """Raises TooManyRequests, with the seconds until there is room again. Who is refused is counted nowhere."""
        if self._shared:
            with self._lock:
                self._checked(user_id, monotonic())
            self._shared.acquire(user_id)
        with self._lock:
            now = monotonic()
            self._recent[user_id] = moments = self._checked(user_id, now)
            self._recent.move_to_end(user_id)
            moments.append(now)

    def _checked(self, user_id: str, now: float) -> deque[float]:
        """The user's moments of the last minute. Raises TooManyRequests when they are too many."""
        self._forget(now - MINUTE)
        moments = self._recent.get(user_id, deque())
        while moments and moments[0] <= now - MINUTE:
            moments.popleft()
        if len(moments) >= self._per_minute:
            raise TooManyRequests(retry_after=math.ceil(moments[0] + MINUTE - now))
        return moments

    def _forget(self, before: float) -> None:
        """Users who have been quiet: the first ones, as whoever speaks goes to the end."""
        while self._recent and next(iter(self._recent.values()))[-1] <= before:
            self._recent.popitem(last=False)
