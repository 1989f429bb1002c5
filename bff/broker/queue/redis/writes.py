"""Names of writes, by which Redis recognizes one that is repeated, and one before it that a fail-over has lost."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from bff.broker.queue.base import Claim, LeaseLost
from bff.broker.queue.redis.keys import claim_key
from bff.errors import TooLarge

MAX_WRITE_NAMES: Final = 10_000
"""Claims whose last write's name is remembered: those of workers that gave up are never removed otherwise."""

_Key = tuple[str, int, str]


class Write(NamedTuple):
    name: str
    previous: str
    """The name of the claim's last write, "" if this is the first one."""


class WriteNames:
    def __init__(self) -> None:
        self.unknown: dict[_Key, str] = {}
        """By claim, the name of a write of which it is not known whether it succeeded."""
        self.written: dict[_Key, str] = {}
        """By claim, the name of its last write that succeeded."""

    @contextmanager
    def write(self, claim: Claim, *, last: bool = False) -> Iterator[Write]:
        """Yields a name for a write of the claim: the same one until it is known whether the write succeeded.

        Repeating a write under the same name has no effect. `last`: no write of the claim follows if it succeeds.
        """
        key = claim_key(claim)
        name = self.unknown.setdefault(key, secrets.token_hex(8))
        _limit(self.unknown)
        try:
            yield Write(name, self.written.get(key, ""))
        except LeaseLost:
            self.forget(claim)
            raise
        except TooLarge:  # Nothing was written.
            self.unknown.pop(key, None)
            raise
        self.unknown.pop(key, None)
        if last:
            self.written.pop(key, None)
        else:
            self.written[key] = name
            _limit(self.written)

    def forget(self, claim: Claim) -> None:
        self.unknown.pop(claim_key(claim), None)
        self.written.pop(claim_key(claim), None)


def _limit(names: dict[_Key, str]) -> None:
    while len(names) > MAX_WRITE_NAMES:
        names.pop(next(iter(names)), None)
