"""The replies of an external broker that this process still reads."""

import threading
from collections import Counter
from time import monotonic

from bff.http.waiting import Waiter


class OpenReplies:
    """Counts each user's replies that are not read to their end yet, including stopped ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._waiters: list[Waiter] = []

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._open

    def add(self, user_id: str) -> None:
        with self._lock:
            self._open[user_id] += 1

    def remove(self, user_id: str) -> None:
        with self._lock:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.wake()

    def wait(self, user_id: str, waiter: Waiter) -> None:
        """Returns when the user has none, or at `waiter.wake_at`. Raises what cancels `waiter`."""
        self._waiters.append(waiter)
        try:
            while user_id in self and monotonic() < waiter.wake_at:
                waiter.wait()
        finally:
            self._waiters.remove(waiter)
