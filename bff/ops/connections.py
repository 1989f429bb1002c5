"""Limits what a slow client can hold: the size of its send buffer, and the time without progress.

`BoundedResponses` is WSGI middleware around the whole app, so it covers every response: JSON, pages, files, errors and streams.
`Connections` tracks each of them until the kernel has accepted its last byte, and aborts those that outlast a drain.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from bff.http import waiting
from bff.ops import metrics, uploads
from bff.ops.uploads import UploadResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SEND_BUFFER_BYTES: Final = 64 * 1024
"""The kernel doubles it. Without it, a send buffer can grow to megabytes."""
STALL_SECONDS: Final = 1.0
"""Near the end of a drain, a client that has read nothing for this time is aborted: it would not read a last event."""
POLL_INTERVAL_SECONDS: Final = 0.05


class Exchange:
    """One request and its response."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.blocked_since = inf
        """The time (monotonic) at which the server began to write the current slice; infinite between two writes."""
        self.was_aborted = False
        self._close: Callable[[], None] | None = None

    def wrap(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        self._close = getattr(chunks, "close", None)
        return self._slices(chunks)

    def _slices(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Splits large chunks: a socket's timeout applies to a whole write, and a large body may take longer."""
        try:
            for chunk in chunks:
                for start in range(0, len(chunk) or 1, SEND_BUFFER_BYTES):
                    self.blocked_since = monotonic()
                    yield chunk[start : start + SEND_BUFFER_BYTES]
                    self.blocked_since = inf
            self.blocked_since = monotonic()  # The server may still write headers, or the last empty chunk.
        finally:
            self.release()

    def release(self) -> None:
        """Closes the app's response, once. Werkzeug's server does not do so after a connection reset."""
        close, self._close = self._close, None
        if close is not None:
            close()


class Connections:
    """The exchanges in progress, and the keep-alive connections that are idle."""

    def __init__(self, slow_seconds: float, upload_seconds: float) -> None:
        self.slow_seconds = slow_seconds
        """A client that reads nothing for this time is disconnected."""
        self.upload_seconds = upload_seconds
        """How long the rest of an upload is read and dropped after its refusal."""
        self.draining = False
        self._lock = threading.Lock()
        self._open: WeakSet[Exchange] = WeakSet()
        self._idle: WeakSet[socket.socket] = WeakSet()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, sock: socket.socket) -> Exchange:
        exchange = Exchange(sock)
        with self._lock:
            self._idle.discard(sock)
            self._open.add(exchange)
        return exchange

    def end(self, exchange: Exchange, error: BaseException | None = None) -> None:
        """`error`: the exception that ended the server's write."""
        with contextlib.suppress(OSError):  # Closed already.
            exchange.sock.settimeout(None)  # Reading the next request has limits of its own.
        with self._lock:
            self._open.discard(exchange)
            self._idle.add(exchange.sock)
        if exchange.was_aborted:
            metrics.CUT.labels("drained").inc()
        elif self._is_slow(exchange, error):
            metrics.CUT.labels("slow").inc()

    def _is_slow(self, exchange: Exchange, error: BaseException | None) -> bool:
        """If TCP_USER_TIMEOUT ends the connection first, a stream's waiter may read the timeout, and the write gets a reset."""
        blocked_for = monotonic() - exchange.blocked_since
        return isinstance(error, TimeoutError) or (isinstance(error, OSError) and blocked_for >= self.slow_seconds / 2)

    def drain(self, seconds: float) -> None:
        """Returns when all connections have ended; aborts the remaining ones after `seconds`.

        New requests on keep-alive connections still get a response meanwhile: 503 `server_restarting`.
        """
        self.draining = True
        deadline = monotonic() + seconds
        self._wait(deadline - STALL_SECONDS)
        self._abort(stalled_for=STALL_SECONDS)
        self._wait(deadline)
        self._abort(stalled_for=0.0)
        for exchange in self._exchanges():
            _shutdown_read(exchange.sock)  # Ends slow uploads; the app can still send an error response.
        for sock in self._idle_sockets():
            _abort(sock)

    def _wait(self, deadline: float) -> None:
        while (self._open or self._idle_sockets()) and (remaining := deadline - monotonic()) > 0:
            time.sleep(min(remaining, POLL_INTERVAL_SECONDS))

    def _abort(self, stalled_for: float) -> None:
        for exchange in self._exchanges():
            if monotonic() - exchange.blocked_since >= stalled_for:
                exchange.was_aborted = True
                _abort(exchange.sock)

    def _exchanges(self) -> list[Exchange]:
        with self._lock:
            return list(self._open)

    def _idle_sockets(self) -> list[socket.socket]:
        with self._lock:
            return [sock for sock in self._idle if sock.fileno() >= 0]


class BoundedResponses:
    """WSGI middleware. In-process calls have no socket and pass through."""

    def __init__(self, app: "WSGIApplication", connections: Connections) -> None:
        self._app = app
        self._connections = connections

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        sock = waiting.client_socket(environ)
        if sock is None:
            return self._app(environ, start_response)
        exchange = self._connections.begin(sock)
        upload = uploads.replace_input(environ)
        try:
            slices = exchange.wrap(self._app(environ, start_response if upload is None else upload.observe(start_response)))
            limit_send_buffer(sock, self._connections.slow_seconds)
            body = _Body(slices, exchange, self._connections)
            if upload is None or upload.is_complete:
                return body
            return UploadResponse(body, upload, partial(self._drop_rest, sock, environ))
        except BaseException:
            self._connections.end(exchange)
            raise

    def _drop_rest(self, sock: socket.socket, environ: "WSGIEnvironment") -> None:
        if self._connections.draining or uploads.closes_connection(environ):
            uploads.drop_rest(sock, self._connections.upload_seconds)


class _Body:
    """What the server iterates and closes. Files are iterated, too: under gevent gunicorn's `sendfile` is a loop."""

    def __init__(self, slices: Any, exchange: Exchange, connections: Connections) -> None:
        self._slices = slices
        self._exchange = exchange
        self._connections = connections

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._slices)

    def close(self) -> None:
        try:
            self._slices.close()
            self._exchange.release()  # A generator that was never started does not run its `finally`.
        finally:
            self._connections.end(self._exchange, sys.exc_info()[1])  # Servers call `close` while they handle a write's error.


def limit_send_buffer(sock: socket.socket, seconds: float) -> None:
    """Limits the kernel memory that a slow client occupies, and disconnects it after `seconds` without progress."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
    sock.settimeout(seconds)


def _abort(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _shutdown_read(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
