"""How many requests may run at once: per receiver, so that a dead one delays nobody else's webhooks."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import Final

MAX_PER_RECEIVER: Final = 8
MAX_PER_FAILING_RECEIVER: Final = 1
"""Of one whose last try failed: it may hold every request until its timeout."""
MAX_DELAY_SECONDS: Final = 30.0
MIN_DELAY_SECONDS: Final = 0.02
MAX_REMEMBERED: Final = 1000
"""Receivers without a running request. What is forgotten is whether their last try failed."""


@dataclass
class _Receiver:
    running: int = 0
    failing: bool = False
    seconds: float = 0.1
    """Of its last request."""
    next_turn: float = 0.0
    """When the next delivery that is refused here may be tried again (monotonic)."""

    @property
    def limit(self) -> int:
        return MAX_PER_FAILING_RECEIVER if self.failing else MAX_PER_RECEIVER


class Receivers:
    """Receivers by origin."""

    def __init__(self) -> None:
        self._receivers: OrderedDict[str, _Receiver] = OrderedDict()
        self._lock = threading.Lock()

    def acquire(self, origin: str) -> float:
        """Returns 0 if a request may start now, or else after how many seconds to ask again.

        Each refused one gets a later turn, as fast as the receiver answers: with thousands waiting, few ask in vain.
        """
        with self._lock:
            receiver = self._receivers.setdefault(origin, _Receiver())
            self._receivers.move_to_end(origin)
            if receiver.running < receiver.limit:
                receiver.running += 1
                return 0.0
            now = monotonic()
            receiver.next_turn = max(now, receiver.next_turn) + receiver.seconds / receiver.limit
            return min(max(receiver.next_turn - now, MIN_DELAY_SECONDS), MAX_DELAY_SECONDS)

    def release(self, origin: str, seconds: float, *, failed: bool) -> None:
        """`seconds`: the duration of the request."""
        with self._lock:
            receiver = self._receivers[origin]
            receiver.running -= 1
            receiver.seconds, receiver.failing = seconds, failed
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        for origin in [*self._receivers][: max(0, len(self._receivers) - MAX_REMEMBERED)]:
            if not self._receivers[origin].running:
                del self._receivers[origin]
