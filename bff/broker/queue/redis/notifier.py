"""Notifications of workers that are waiting for messages."""

import threading


class Notifier:
    """Counts notifications, so that a caller who has read the count cannot miss the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._parts: set[int] = set()
        self._all = False
        self.count = 0

    def notify(self, part: int | None) -> None:
        """`part`: of the schedule; None for any of them."""
        with self._condition:
            if part is None:
                self._all = True
            else:
                self._parts.add(part)
            self.count += 1
            self._condition.notify_all()

    def pop_parts(self) -> set[int]:
        """Returns the parts notified since the last call."""
        if not self._parts:
            return set()
        with self._condition:
            parts, self._parts = self._parts, set()
            return parts

    def pop_all(self) -> bool:
        """Returns whether any part may have been notified since the last call."""
        with self._condition:
            result, self._all = self._all, False
            return result

    def wait(self, since: int, seconds: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.count != since, seconds)
