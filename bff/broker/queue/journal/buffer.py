"""Records on their way into a journal, and who waits for them to be there. Called with the queue's lock held."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from bff.broker.queue.journal.file import Record


class Batch(NamedTuple):
    records: list[Record]
    remembered: list[Record]
    position: int


class Buffer:
    def __init__(self) -> None:
        self.position = 0
        """How many records there were, from the first one that was read."""
        self.done = 0
        """The position up to which they are committed."""
        self.gives_up = False
        """Whether nobody shall wait: the file takes no writes, or is another process's."""
        self._records: list[Record] = []
        self._remembered: list[Record] = []
        self._hurried = False

    def bind(self, lock: threading.Lock) -> None:
        self._wanted = threading.Condition(lock)
        self._committed = threading.Condition(lock)

    def record(self, *record: Any) -> None:
        self.position += 1
        self._records.append(record)
        if len(self._records) == 1:
            self._wanted.notify()

    def remember(self, *record: Any) -> None:
        self.position += 1
        self._remembered.append(record)
        if len(self._remembered) == 1:
            self._wanted.notify()

    def hurry(self) -> None:
        """Commits without waiting for more records."""
        if not self._hurried:
            self._hurried = True
            self._wanted.notify()

    def is_done(self, position: int) -> bool:
        return self.done >= position or self.gives_up

    def flush(self) -> bool:
        """Waits, without the lock, until everything so far is committed; whether it is."""
        position = self.position
        if self.done < position:
            self.hurry()
            self._committed.wait_for(lambda: self.is_done(position))
        return self.done >= position

    # Called by whoever commits.

    def take(self, idle: float, gather_seconds: float, closing: Callable[[], bool]) -> Batch:
        """What is to be committed next: after `idle` seconds perhaps nothing. Records wait for others for `gather_seconds`."""
        if not self._has_records():
            self._wanted.wait_for(lambda: self._has_records() or self._hurried or closing(), idle)
        if self._has_records():
            self._wanted.wait_for(lambda: self._hurried or closing(), gather_seconds)
        taken = Batch(self._records, self._remembered, self.position)
        self._records, self._remembered, self._hurried = [], [], False
        return taken

    def settle(self, position: int) -> None:
        """Everything up to there is committed."""
        self.done = position
        self.wake()

    def put_back(self, batch: Batch) -> None:
        """It could not be committed."""
        self._records[:0], self._remembered[:0] = batch.records, batch.remembered
        self.wake()

    def wake(self) -> None:
        self._wanted.notify()
        self._committed.notify_all()

    def _has_records(self) -> bool:
        return bool(self._records or self._remembered)
