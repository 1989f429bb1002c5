"""Which rows a journal's file has, and which of them nobody needs any more."""

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from bff.broker.queue.journal.file import Row
from bff.broker.queue.ttl_cache import REMEMBER_MOST, REMEMBER_SECONDS


class _Kept(NamedTuple):
    n: int
    size: int
    mark: float
    """Of `log` the last record's position, of `remembered` the moment it was written or read."""
    records: int


class Rows:
    def __init__(self) -> None:
        self._log: deque[_Kept] = deque()
        self._remembered: deque[_Kept] = deque()
        self._dead: list[int] = []
        self.size = 0
        """Bytes of all rows of `log`."""

    def keep(self, rows: Sequence[Row], position: int) -> None:
        for row in rows:
            self._log.append(_Kept(row.n, row.size, position, 0))
            self.size += row.size

    def keep_remembered(self, rows: Sequence[Row], records: int) -> None:
        self._remembered.extend(_Kept(row.n, row.size, time.time(), records) for row in rows)

    def trim(self, oldest: int) -> None:
        """Nobody needs the records before this position."""
        while len(self._log) > 1 and self._log[0].mark < oldest:  # The last row has the last event's id.
            row = self._log.popleft()
            self._dead.append(row.n)
            self.size -= row.size

    def take_dead(self) -> list[int]:
        """Those of `log` that are to be deleted."""
        dead, self._dead = self._dead, []
        return dead

    def put_back(self, dead: list[int]) -> None:
        """They could not be deleted."""
        self._dead[:0] = dead

    def take_outdated(self) -> list[int]:
        """Those of `remembered` that are a day old, or more than can be remembered."""
        rows, before = self._remembered, time.time() - REMEMBER_SECONDS
        records = sum(row.records for row in rows)
        outdated = []
        while rows and (rows[0].mark < before or records - rows[0].records > 2 * REMEMBER_MOST):
            records -= rows[0].records
            outdated.append(rows.popleft().n)
        return outdated
