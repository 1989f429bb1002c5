"""Names of a claim's writes, by which Redis recognizes one that is repeated, and one before it that a fail-over has lost.

Lost writes are written once more: see `Writes.since`.
"""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bff.broker.queue.base import Claim, LeaseLost, LogEntry
from bff.broker.queue.redis.keys import claim_key
from bff.errors import TooLarge

MAX_WRITE_NAMES: Final = 10_000
"""Claims whose last write's name is remembered: those of workers that gave up are never removed otherwise."""
MAX_KEPT_WRITES: Final = 200
"""Of a claim; at 20 writes per second those of 10 seconds, much more than a replica lags behind."""

_Key = tuple[str, int, str]


class Write(NamedTuple):
    name: str
    previous: str
    """The name of the claim's last write, "" if this is the first one."""


class Written(NamedTuple):
    name: str
    entries: Sequence[LogEntry]
    started: bool


@dataclass
class _History:
    writes: deque[Written] = field(default_factory=lambda: deque(maxlen=MAX_KEPT_WRITES))
    number: int = 0
    """Of all writes."""


class Writes:
    def __init__(self, *, keeps_entries: bool) -> None:
        """`keeps_entries`: of the last writes, where a fail-over may lose them."""
        self.unknown: dict[_Key, str] = {}
        """By claim, the name of a write of which it is not known whether it succeeded."""
        self._keeps_entries = keeps_entries
        self._written: dict[_Key, _History] = {}

    @contextmanager
    def write(
        self, claim: Claim, entries: Sequence[LogEntry] | None, *, started: bool = True, last: bool = False
    ) -> Iterator[Write]:
        """Yields a name for a write of the claim: the same one until it is known whether the write succeeded.

        Repeating a write under the same name has no effect. `entries`: None for a write that `since` cannot repeat.
        `last`: no write of the claim follows if it succeeds.
        """
        key = claim_key(claim)
        name = self.unknown.setdefault(key, secrets.token_hex(8))
        _limit(self.unknown)
        try:
            yield Write(name, self._last_name(key))
        except LeaseLost:
            self.forget(claim)
            raise
        except TooLarge:  # Nothing was written.
            self.unknown.pop(key, None)
            raise
        self.unknown.pop(key, None)
        if last:
            self._written.pop(key, None)
        else:
            self._add(key, Written(name, entries or (), started), repeatable=entries is not None)

    def since(self, claim: Claim, name: str) -> list[Written]:
        """Returns the writes after that one, "" for all. Raises LeaseLost if they are not known."""
        history = self._written.get(claim_key(claim), _History())
        names = [written.name for written in history.writes]
        if name in names:
            return list(history.writes)[names.index(name) + 1 :]
        if name or history.number != len(names) or not self._keeps_entries:
            raise LeaseLost
        return list(history.writes)

    def forget(self, claim: Claim) -> None:
        self.unknown.pop(claim_key(claim), None)
        self._written.pop(claim_key(claim), None)

    def _last_name(self, key: _Key) -> str:
        history = self._written.get(key)
        return history.writes[-1].name if history else ""

    def _add(self, key: _Key, written: Written, *, repeatable: bool) -> None:
        history = self._written.setdefault(key, _History())
        if not repeatable or not self._keeps_entries:
            history.writes.clear()
        history.writes.append(written if self._keeps_entries else written._replace(entries=()))
        history.number += 1
        _limit(self._written)


def _limit(items: dict[_Key, str] | dict[_Key, _History]) -> None:
    while len(items) > MAX_WRITE_NAMES:
        items.pop(next(iter(items)), None)
