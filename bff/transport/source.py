"""One open stream of events, read at a waiting place."""

import contextlib
import threading
from collections.abc import Iterator
from time import monotonic

import requests

from bff.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.ops import hub
from bff.ops.hub import Watch
from bff.sse import MAX_EVENT_BYTES, Decoder, Event
from bff.transport.body import READ_BYTES, Body
from bff.transport.calls import LIBRARY_ERRORS, refuse_encoded


class EventSource:
    """One open event stream. One greenlet or thread at a time reads it; any may close it, and whoever opened it must.

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
        self._response = response
        self._silence = silence
        self._decoder = Decoder(max_event_bytes)
        self._join_seconds = join_seconds
        self._told_at = 0.0
        self._fast = False
        self._ahead: list[Event] = []
        self._closed = False
        self._reader: int | None = None
        # urllib3 wraps http.client's response and keeps it under this name, which requests itself relies on. Doubles made
        # by `responses` have none of ours: their `read1` never waits.
        body = getattr(response.raw, "_original_response", None)
        self._body = body if isinstance(body, Body) else None
        try:
            refuse_encoded(response)
            if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "text/event-stream":
                raise UpstreamError(detail="an answer that is no event stream")
        except UpstreamError:
            self.close()
            raise

    def events(self, watch: Watch) -> Iterator[Event | None]:
        """The stream's events, and None after each read or when `watch` woke up for something else."""
        ahead, self._ahead = self._ahead, []
        yield from ahead
        for chunk in self.chunks(watch):
            events = self._decoder.feed(chunk)
            yield from events
            yield None
            if events and self._join_seconds:
                self._let_some_come(watch, len(events))

    def peek(self, until: float) -> Event | None:
        """The first event, which `events` will give again; None when there is none until `until`."""
        watch = hub.watch()
        watch.due = until
        try:
            for chunk in self.chunks(watch):
                self._ahead += self._decoder.feed(chunk)
                if self._ahead or monotonic() >= until:
                    break
        finally:
            watch.close()
        return self._ahead[0] if self._ahead else None

    def _let_some_come(self, watch: Watch, count: int) -> None:
        """Waits a little where events come fast, so that they are read, and written, together.

        Most of what an event costs is its read and its write. An event that comes after a pause is never held up.
        """
        now = monotonic()
        self._fast = now - self._told_at < self._join_seconds or (self._fast and count > 1)
        if self._fast:
            until = now + self._join_seconds
            while monotonic() < min(until, watch.due):
                watch.wait(until=until)
        self._told_at = monotonic()

    def chunks(self, watch: Watch) -> Iterator[bytes]:
        """The stream's bytes as they come; b"" when `watch` woke up and nothing had come."""
        self._reader = threading.get_ident()
        heard = monotonic()
        try:
            while (chunk := self._take()) != b"":
                if chunk is not None:
                    heard = monotonic()
                    yield chunk
                elif monotonic() >= heard + self._silence:
                    raise UpstreamTimeout(detail=f"silent for {self._silence} s")
                else:
                    yield b""
                if self._body is not None and not self._body.ended:
                    watch.wait(self._body, heard + self._silence)
        finally:
            self._reader = None
            if self._closed:
                self._release()

    def _take(self) -> bytes | None:
        if self._closed:
            raise UpstreamUnavailable(detail="closed while it was read")
        try:
            return self._body.take() if self._body else self._response.raw.read1(READ_BYTES)
        except LIBRARY_ERRORS as error:
            raise UpstreamUnavailable(detail=f"the stream was cut: {error!r}") from error

    def close(self) -> None:
        """Idempotent. A reader elsewhere wakes up and closes the socket itself: nobody else safely can."""
        if self._closed:
            return
        self._closed = True
        if self._reader in {None, threading.get_ident()}:
            self._release()
            return
        with contextlib.suppress(ValueError, OSError):  # Over already.
            self._response.raw.shutdown()

    def _release(self) -> None:
        """Closes the response; its connection goes back to the pool if the stream happens to have ended by now."""
        with contextlib.suppress(*LIBRARY_ERRORS):
            if self._body is not None:
                self._body.take()
                if self._body.spent:
                    self._body.close()
                    self._response.raw.release_conn()
        self._response.close()
