"""One open stream of events, read at a waiting place."""

from collections.abc import Iterator
from time import monotonic

import requests

from bff.errors import UpstreamError
from bff.http.sse import MAX_EVENT_BYTES, Decoder, Event
from bff.http.waiting import Waiter
from bff.upstream.http.byte_stream import ByteStream


class EventSource(ByteStream):
    """One open event stream.

    Raises UpstreamError when it is no plain event stream; while reading, UpstreamError for an event of more than
    `max_event_bytes`, UpstreamUnavailable when it is cut, UpstreamTimeout after `silence` seconds without a byte.
    """

    def __init__(
        self,
        response: requests.Response,
        silence: float,
        max_event_bytes: int = MAX_EVENT_BYTES,
        join_seconds: float = 0.0,
    ) -> None:
        super().__init__(response, silence)
        self._decoder = Decoder(max_event_bytes)
        self._join_seconds = join_seconds
        self._told_at = 0.0
        self._fast = False
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "text/event-stream":
            self.close()
            raise UpstreamError(detail="an answer that is no event stream")

    def events(self, waiter: Waiter) -> Iterator[Event | None]:
        """The stream's events, and None after each read or when `waiter` woke up for something else.

        None means: all that has come has been told. Whoever waits may now write out what it holds and look at the clock.
        """
        for chunk in self.chunks(waiter):
            events = self._decoder.feed(chunk)
            yield from events
            yield None
            if events and self._join_seconds:
                self._let_some_come(waiter, len(events))

    def _let_some_come(self, waiter: Waiter, count: int) -> None:
        """Waits a little where events come fast, so that they are read, and written, together.

        Most of what an event costs is its read and its write. An event that comes after a pause is never held up.
        """
        now = monotonic()
        self._fast = now - self._told_at < self._join_seconds or (self._fast and count > 1)
        if self._fast:
            deadline = now + self._join_seconds
            while monotonic() < min(deadline, waiter.wake_at):
                waiter.wait(deadline=deadline)
        self._told_at = monotonic()
