"""What is known for a day: so many things at most, the oldest go first."""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

REMEMBER_SECONDS: Final = 24 * 3600
REMEMBER_MOST: Final = 100_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class TTLCache(Generic[Key, Value]):
    def __init__(self) -> None:
        self._known: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        known = self._known.get(key)
        return known and known[0]

    def keep(self, key: Key, value: Value, now: float) -> None:
        self._known[key] = value, now
        if len(self._known) > REMEMBER_MOST:
            self._known.popitem(last=False)

    def drop(self, key: Key) -> None:
        self._known.pop(key, None)

    def forget(self, now: float) -> None:
        """What is too old."""
        while self._known and next(iter(self._known.values()))[1] < now - REMEMBER_SECONDS:
            self._known.popitem(last=False)
