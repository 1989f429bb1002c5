"""The rows of a journal's file, and which of them may be deleted."""

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from bff.broker.queue.journal.file import Row
from bff.broker.queue.ttl_cache import MAX_ENTRIES, TTL_SECONDS


class _LogRow(NamedTuple):
    n: int
    size: int
    position: int
    """The position of its last record."""


class _RememberedRow(NamedTuple):
    n: int
    seen_at: float
    """When it was written or read."""
    records: int


class Rows:
    def __init__(self) -> None:
        self._log: deque[_LogRow] = deque()
        self._remembered: deque[_RememberedRow] = deque()
        self._outdated: list[int] = []
        self.size = 0
        """Bytes of all rows of the table `log`."""

    def add(self, rows: Sequence[Row], position: int) -> None:
        for row in rows:
            self._log.append(_LogRow(row.n, row.size, position))
            self.size += row.size

    def add_remembered(self, rows: Sequence[Row], records: int) -> None:
        self._remembered.extend(_RememberedRow(row.n, time.time(), records) for row in rows)

    def trim(self, oldest: int) -> None:
        """Marks the rows with only records before the position `oldest` for deletion."""
        while len(self._log) > 1 and self._log[0].position < oldest:  # The last row holds the last event's id.
            row = self._log.popleft()
            self._outdated.append(row.n)
            self.size -= row.size

    def take_outdated(self) -> list[int]:
        """Returns the rows of `log` to delete."""
        outdated, self._outdated = self._outdated, []
        return outdated

    def put_back(self, outdated: list[int]) -> None:
        """Returns rows that could not be deleted."""
        self._outdated[:0] = outdated

    def take_outdated_remembered(self) -> list[int]:
        """Returns the rows of `remembered` to delete: those older than a TTLCache's entries, or more than it holds."""
        rows, oldest = self._remembered, time.time() - TTL_SECONDS
        records = sum(row.records for row in rows)
        outdated = []
        while rows and (rows[0].seen_at < oldest or records - rows[0].records > 2 * MAX_ENTRIES):
            records -= rows[0].records
            outdated.append(rows.popleft().n)
        return outdated
