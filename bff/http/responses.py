"""An iterator of events as an HTTP response: joined writes, heartbeats, and everything closed whatever happens.

Used by the porch and by the neighbours alike. The generator takes plain values, never `request`: Flask's context is gone
by the time it runs.
"""

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
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
"""Headers leave with the first event, in one write; if none comes so soon, they leave alone."""

log = logging.getLogger(__name__)

EventFactory = Callable[[Waiter], Iterable[Event | None]]


class StreamStats:
    """What one stream has cost its reader's line so far."""

    def __init__(self) -> None:
        self.bytes = 0
        self.heartbeats = 0


class Stream(Response):
    """Pieces that are made while they are sent. `close` is called once, even if nothing was ever made."""

    def __init__(self, pieces: Iterable[bytes], close: Callable[[], None], **options: Any) -> None:
        super().__init__(pieces, **options)
        self.call_on_close(close)

    def get_app_iter(self, environ: Any) -> Iterable[bytes]:
        """What the server iterates, without the two layers Werkzeug would put around every piece."""
        return _Body(iter(()) if environ["REQUEST_METHOD"] == "HEAD" else self.response, self.close)

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            return super().__call__(environ, start_response)
        except BaseException:
            self.close()  # A server that refuses a header never gets the iterable it would have to close.
            raise


class EventStream(Stream):
    """`events` is given the stream's waiting place and yields events, and None where it has no more for now.

    `close` is called once, even if nothing was ever read. `slot` is released then; a drain ends the stream through it.
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
        over = ExitStack()
        if slot is not None:
            over.callback(slot.release)
        over.callback(close)
        frames = _frames(events, options, waiting.client(environ), slot, over, stats or StreamStats())
        fields = {**HEADERS, **(headers or {})}
        super().__init__(frames, over.close, content_type="text/event-stream; charset=utf-8", headers=fields)


class _Body:
    """Pieces to iterate, and what to do when the server is done with them."""

    def __init__(self, pieces: Any, close: Callable[[], None]) -> None:
        self._pieces = pieces
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


class StreamOptions(NamedTuple):
    """How a stream is written."""

    heartbeat: bytes
    """A frame."""
    seconds: float
    """Of silence, after which a heartbeat is sent."""
    retry: int | None = None
    """Milliseconds, said in the first event's frame."""
    ids: bool = True
    """Whether events carry their ids."""
    preamble: bytes = b""
    """A frame to say at once, with the headers."""


def _frames(
    events: EventFactory,
    options: StreamOptions,
    place: socket.socket | Waiter | None,
    slot: Slot | None,
    over: ExitStack,
    stats: StreamStats,
) -> Iterator[bytes]:
    waiter = waiting.new_waiter(place)
    try:
        if slot is not None:
            slot.attach(waiter)
        for data in _coalesce(events(waiter), waiter, options, stats):
            stats.bytes += len(data)
            yield data
    except ClientDisconnected:
        pass  # Nobody is left to tell, or whoever is comes back elsewhere.
    except Exception:
        # gunicorn takes any OSError for a browser that left, and Flask's handlers are past: this is the last chance.
        log.exception("a stream broke")
    finally:
        waiter.close()
        over.close()  # Flask's own server never closes the response when the browser's last word is a reset.


def _coalesce(events: Iterable[Event | None], waiter: Waiter, options: StreamOptions, stats: StreamStats) -> Iterator[bytes]:
    """What came together is written together: a write an event is what streams cost most."""
    ready: list[bytes] = []
    silent = b""
    retry = options.retry
    waiter.wake_at = monotonic() + HEAD_SECONDS
    if options.preamble:
        yield options.preamble
        silent = options.heartbeat
        waiter.wake_at = monotonic() + options.seconds
    for event in events:
        if event is not None:
            ready.append(encode(event if options.ids else event._replace(id=""), retry))
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
                yield b""  # The next step may be a wait, and its reader has words and a clock of its own.
            continue
        silent = options.heartbeat
        waiter.wake_at = monotonic() + options.seconds
    if ready:
        yield b"".join(ready)
