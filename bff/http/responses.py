"""An iterator of events as an HTTP response, with coalesced writes and heartbeats. Everything is closed however it ends.

Used by the API and by the bundled broker and engine. The generators take plain values, never `request`: Flask's context is
gone by the time they run.
"""

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

from flask import Response

from bff.errors import ClientDisconnected
from bff.http import waiting
from bff.http.sse import Event, encode
from bff.http.streams import Slot
from bff.http.waiting import Waiter

HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
HEAD_SECONDS: Final = 0.1
"""Headers are sent with the first event, in one write, or alone if no event arrives in this time."""

log = logging.getLogger(__name__)

EventFactory = Callable[[Waiter], Iterable[Event | None]]


def without_empty_type(response: Response) -> Response:
    """Removes Flask's default Content-Type from a response without a body, such as a 204 or the answer to OPTIONS."""
    if response.mimetype == "text/html" and not response.is_streamed and response.calculate_content_length() == 0:
        del response.headers["Content-Type"]
    return response


class StreamStats:
    """Bytes and heartbeats sent on one stream so far."""

    def __init__(self) -> None:
        self.bytes = 0
        self.heartbeats = 0


class Stream(Response):
    """A response whose pieces are produced while it is sent. `close` is called once, even if none was produced."""

    def __init__(self, pieces: Iterable[bytes], close: Callable[[], None], **options: Any) -> None:
        super().__init__(pieces, **options)
        self.call_on_close(close)

    def get_app_iter(self, environ: Any) -> Iterable[bytes]:
        """The pieces without the two iterators that Werkzeug would wrap around them."""
        return _Body(iter(()) if environ["REQUEST_METHOD"] == "HEAD" else self.response, self.close)

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            return super().__call__(environ, start_response)
        except BaseException:
            self.close()  # A server that rejects a header never gets the iterable it would have to close.
            raise


class EventStream(Stream):
    """`events` is called with the stream's waiter and yields events, and None where it has no more for now.

    `close` is called once, even if nothing was read; `slot` is released then. A drain ends the stream through `slot`.
    """

    def __init__(
        self,
        events: EventFactory,
        options: "StreamOptions",
        *,
        environ: Mapping[str, Any],
        slot: Slot | None = None,
        close: Callable[[], None] = lambda: None,
        headers: Mapping[str, str] | None = None,
        stats: StreamStats | None = None,
    ) -> None:
        end = _End(close, slot)
        frames = _frames(events, options, waiting.client(environ), slot, end, stats or StreamStats())
        all_headers = {**HEADERS, **(headers or {})}
        super().__init__(frames, end, content_type="text/event-stream; charset=utf-8", headers=all_headers)


class _End:
    """Calls `close` and releases the slot, once. An ExitStack would take a kilobyte of each stream."""

    __slots__ = ("_close", "_slot")

    def __init__(self, close: Callable[[], None], slot: Slot | None) -> None:
        self._close: Callable[[], None] | None = close
        self._slot = slot

    def __call__(self) -> None:
        close, self._close = self._close, None
        if close is None:
            return
        try:
            close()
        finally:
            if self._slot is not None:
                self._slot.release()


class _Body:
    """A WSGI iterable with a `close` of its own."""

    def __init__(self, pieces: Any, close: Callable[[], None]) -> None:
        self._pieces = pieces
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


class StreamOptions(NamedTuple):
    heartbeat: bytes
    """A frame."""
    seconds: float
    """Seconds of silence after which a heartbeat is sent."""
    retry: int | None = None
    """Milliseconds; sent with the first event."""
    ids: bool = True
    """Whether events carry their ids."""
    preamble: bytes = b""
    """A frame that is sent at once, with the headers."""
    id_first: bool = False
    """Whether an event's id comes before its data."""


def _frames(
    events: EventFactory,
    options: StreamOptions,
    client: socket.socket | Waiter | None,
    slot: Slot | None,
    end: _End,
    stats: StreamStats,
) -> Iterator[bytes]:
    waiter = waiting.new_waiter(client)
    try:
        if slot is not None:
            slot.attach(waiter)
        for data in _coalesce(events(waiter), waiter, options, stats):
            stats.bytes += len(data)
            yield data
    except ClientDisconnected:
        pass  # The client disconnected, or was drained and will reconnect to another process.
    except Exception:
        # Flask's error handlers no longer run here, and gunicorn ignores every OSError as a client disconnect.
        log.exception("a stream broke")
    finally:
        waiter.close()
        end()  # Werkzeug's server does not close the response after a client's reset.


def _coalesce(events: Iterable[Event | None], waiter: Waiter, options: StreamOptions, stats: StreamStats) -> Iterator[bytes]:
    """Coalesces ready events into one write; one write per event dominates CPU cost. Yields heartbeats in between."""
    ready: list[bytes] = []
    silent = b""  # An empty piece makes the server send the headers; from then on, a heartbeat.
    retry = options.retry
    waiter.wake_at = monotonic() + HEAD_SECONDS
    if options.preamble:
        yield options.preamble
        silent = options.heartbeat
        waiter.wake_at = monotonic() + options.seconds
    for event in events:
        if event is not None:
            ready.append(encode(event if options.ids else event._replace(id=""), retry, id_first=options.id_first))
            retry = None
            continue
        if ready:
            yield b"".join(ready)
            ready.clear()
        elif monotonic() >= waiter.wake_at:
            stats.heartbeats += silent != b""
            yield silent
        else:
            if waiter.nested:
                yield b""  # The next step may wait; the reader needs control first, for its own events and deadlines.
            continue
        silent = options.heartbeat
        waiter.wake_at = monotonic() + options.seconds
    if ready:
        yield b"".join(ready)
