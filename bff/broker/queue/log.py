"""A message's event log in memory, and the ids of its events."""

from bisect import bisect_right
from collections.abc import Sequence

from bff.broker.queue.base import PAGE_EVENTS, LogEntry
from bff.errors import InvalidRequest
from bff.http import sse
from bff.http.sse import Event

EventId = tuple[int, int]
"""Milliseconds since 1970 and a counter, as in a Redis Stream: unique across restarts, since the clock advances."""


class Log:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.size = 0
        self._ids: list[EventId] = []

    def append(self, event_id: EventId, entry: LogEntry) -> Event:
        event = Event(*entry, f"{event_id[0]}-{event_id[1]}")
        self.events.append(event)
        self.size += size_of([entry])
        self._ids.append(event_id)
        return event

    def holds(self, event_id: EventId) -> bool:
        index = bisect_right(self._ids, event_id)
        return index > 0 and self._ids[index - 1] == event_id

    def after(self, event_id: str, end: int | None = None) -> Sequence[Event]:
        """Returns a page of the events after `event_id` ("" for the first page), of the first `end`. Raises InvalidRequest."""
        start = bisect_right(self._ids, parse_event_id(event_id)) if event_id else 0
        return self.events[start : start + PAGE_EVENTS if end is None else min(end, start + PAGE_EVENTS)]


def size_of(entries: Sequence[LogEntry]) -> int:
    """Approximate bytes of memory that the entries take in a log."""
    return sum(sse.size_of(data) for _, data in entries)


def parse_event_id(event_id: str) -> EventId:
    """Raises InvalidRequest for a malformed id."""
    milliseconds, _, number = event_id.partition("-")
    if not (milliseconds.isdecimal() and number.isdecimal() and event_id.isascii() and len(event_id) < 40):
        raise InvalidRequest("The last event id is not valid.")
    return int(milliseconds), int(number)


def parse_event_id_or_none(event_id: str) -> EventId | None:
    try:
        return parse_event_id(event_id)
    except InvalidRequest:
        return None
