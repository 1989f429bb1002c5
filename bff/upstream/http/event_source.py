"""An open event stream."""

from collections.abc import Iterator
from time import monotonic

import requests

from bff.errors import UpstreamError
from bff.http.sse import MAX_EVENT_BYTES, Decoder, Event
from bff.http.waiting import Waiter
from bff.upstream.http.byte_stream import ByteStream


class EventSource(ByteStream):
    """An open event stream.

    Raises UpstreamError for another content type; while reading, UpstreamError for an event of more than `max_event_bytes`,
    UpstreamUnavailable when the connection is lost, UpstreamTimeout after `silence` seconds without a byte.
    """

    def __init__(
        self,
        response: requests.Response,
        silence: float,
        max_event_bytes: int = MAX_EVENT_BYTES,
        coalesce_seconds: float = 0.0,
    ) -> None:
        super().__init__(response, silence)
        self._decoder = Decoder(max_event_bytes)
        self._coalesce_seconds = coalesce_seconds
        self._last_events_at = 0.0
        self._fast = False
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "text/event-stream":
            self.close()
            raise UpstreamError(detail="the response is not an event stream")

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        """Events, and None after each read or when `waiter` woke up for another reason.

        None means that all received events were yielded: the caller may write what it has buffered and check its deadlines.
        """
        for chunk in self.chunks(waiter):
            events = self._decoder.feed(chunk)
            yield from events
            yield None
            if events and self._coalesce_seconds:
                self._wait_for_more(waiter, len(events))

    def _wait_for_more(self, waiter: Waiter, count: int) -> None:
        """Waits briefly while events arrive fast, so that several are read and written at once.

        Reads and writes dominate the CPU cost of an event. An event that arrives after a pause is never delayed.
        """
        now = monotonic()
        self._fast = now - self._last_events_at < self._coalesce_seconds or (self._fast and count > 1)
        if self._fast:
            deadline = now + self._coalesce_seconds
            while monotonic() < min(deadline, waiter.wake_at):
                waiter.wait(deadline=deadline)
        self._last_events_at = monotonic()
