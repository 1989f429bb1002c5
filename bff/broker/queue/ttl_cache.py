"""A mapping whose entries expire after a day and whose size is limited: the oldest entries are removed first."""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

TTL_SECONDS: Final = 24 * 3600
MAX_ENTRIES: Final = 100_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class TTLCache(Generic[Key, Value]):
    def __init__(self) -> None:
        self._items: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        item = self._items.get(key)
        return item and item[0]

    def set(self, key: Key, value: Value, now: float) -> None:
        self._items[key] = value, now
        if len(self._items) > MAX_ENTRIES:
            self._items.popitem(last=False)

    def delete(self, key: Key) -> None:
        self._items.pop(key, None)

    def expire(self, now: float) -> None:
        """Removes entries older than TTL_SECONDS."""
        while self._items and next(iter(self._items.values()))[1] < now - TTL_SECONDS:
            self._items.popitem(last=False)
