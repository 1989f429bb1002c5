"""Records to be committed to a journal, and the callers waiting for that. Every method is called with the queue's lock held."""

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
        """Number of records so far, including those that were read from the file."""
        self.committed = 0
        """The position up to which records are committed."""
        self.failing = False
        """Whether callers are not to wait: the file takes no writes, or belongs to another process."""
        self._records: list[Record] = []
        self._remembered: list[Record] = []
        self._commit_soon = False

    def bind(self, lock: threading.Lock) -> None:
        self._work_available = threading.Condition(lock)
        self._commit_done = threading.Condition(lock)

    def record(self, *record: Any) -> None:
        self._add(self._records, record)

    def remember(self, *record: Any) -> None:
        self._add(self._remembered, record)

    def _add(self, records: list[Record], record: Record) -> None:
        self.position += 1
        records.append(record)
        if len(records) == 1:
            self._work_available.notify()

    def commit_soon(self) -> None:
        """Commits without waiting for more records."""
        if not self._commit_soon:
            self._commit_soon = True
            self._work_available.notify()

    def is_committed(self, position: int) -> bool:
        """Whether the position is committed, or is not to be waited for."""
        return self.committed >= position or self.failing

    def flush(self) -> bool:
        """Waits, with the lock released, until all records so far are committed. Returns whether they are."""
        position = self.position
        if self.committed < position:
            self.commit_soon()
            self._commit_done.wait_for(lambda: self.is_committed(position))
        return self.committed >= position

    # Called by the committing thread.

    def take(self, idle: float, gather_seconds: float, closing: Callable[[], bool]) -> Batch:
        """Returns the records to commit: none if there were none for `idle` seconds. Gathers records for `gather_seconds`."""
        if not self._has_records():
            self._work_available.wait_for(lambda: self._has_records() or self._commit_soon or closing(), idle)
        if self._has_records():
            self._work_available.wait_for(lambda: self._commit_soon or closing(), gather_seconds)
        batch = Batch(self._records, self._remembered, self.position)
        self._records, self._remembered, self._commit_soon = [], [], False
        return batch

    def mark_committed(self, position: int) -> None:
        self.committed = position
        self.wake()

    def put_back(self, batch: Batch) -> None:
        """Returns a batch that could not be committed to the front."""
        self._records[:0], self._remembered[:0] = batch.records, batch.remembered
        self.wake()

    def wake(self) -> None:
        self._work_available.notify()
        self._commit_done.notify_all()

    def _has_records(self) -> bool:
        return bool(self._records or self._remembered)
