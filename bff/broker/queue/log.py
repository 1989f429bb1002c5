"""A message's events, in order, with the ids by which a reader says how far it has read."""

from bisect import bisect_right
from collections.abc import Sequence

from bff.broker.queue.base import PAGE_EVENTS, LogEntry
from bff.errors import InvalidRequest
from bff.http import sse
from bff.http.sse import Event

Number = tuple[int, int]
"""What an id says: milliseconds since 1970 and a count, as in a Redis Stream. Unique over restarts, as the clock goes on."""


class Log:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.size = 0
        self._numbers: list[Number] = []

    def append(self, number: Number, entries: LogEntry) -> Event:
        event = Event(*entries, f"{number[0]}-{number[1]}")
        self.events.append(event)
        self.size += size_of([entries])
        self._numbers.append(number)
        return event

    def holds(self, number: Number) -> bool:
        at = bisect_right(self._numbers, number)
        return at > 0 and self._numbers[at - 1] == number

    def after(self, event_id: str, end: int | None = None) -> Sequence[Event]:
        """A page of them, the first one for "", of the first `end`. Raises InvalidRequest for an id that is none of ours."""
        start = bisect_right(self._numbers, parsed(event_id)) if event_id else 0
        return self.events[start : start + PAGE_EVENTS if end is None else min(end, start + PAGE_EVENTS)]


def size_of(entries: Sequence[LogEntry]) -> int:
    """Bytes of memory that these take in a log, about."""
    return sum(sse.size_of(data) for _, data in entries)


def parsed(event_id: str) -> Number:
    """Raises InvalidRequest for an id that is none of ours."""
    milliseconds, _, number = event_id.partition("-")
    if not (milliseconds.isdecimal() and number.isdecimal() and event_id.isascii() and len(event_id) < 40):
        raise InvalidRequest("The last event id is none of ours.")
    return int(milliseconds), int(number)


def parsed_or_none(event_id: str) -> Number | None:
    try:
        return parsed(event_id)
    except InvalidRequest:
        return None
