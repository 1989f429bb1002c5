"""Shares a limited number of things, such as connections, among greenlets or threads in the order in which they ask."""

import threading
from collections import deque
from queue import Empty, Full
from typing import Any


class _Waiting:
    def __init__(self) -> None:
        self.served = threading.Event()
        self.item: Any = None

    def serve(self, item: Any) -> None:
        self.item = item
        self.served.set()


class FairStack:
    """A LifoQueue that serves those who wait first, in their order.

    From the standard one, a caller that puts back its item and gets one again takes it before those who wait: under gevent it
    does so until it blocks elsewhere, and they may time out.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self.queue: list[Any] = []
        """Empty while anyone waits."""

    def put_nowait(self, item: Any) -> None:
        """Raises Full."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().serve(item)
            elif len(self.queue) < self._maxsize:
                self.queue.append(item)
            else:
                raise Full

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """`timeout`: seconds. Raises Empty."""
        with self._lock:
            if self.queue:
                return self.queue.pop()
            if not block:
                raise Empty
            waiting = _Waiting()
            self._waiting.append(waiting)
        try:
            waiting.served.wait(timeout)
        except BaseException:
            if not self._leave(waiting):
                self.put_nowait(waiting.item)
            raise
        if self._leave(waiting):
            raise Empty
        return waiting.item

    def _leave(self, waiting: _Waiting) -> bool:
        """Returns whether it was still waiting."""
        with self._lock:
            if waiting.served.is_set():
                return False
            self._waiting.remove(waiting)
            return True
