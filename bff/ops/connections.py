"""Requests in progress over sockets: what a client that does not read can hold, and for how long.

`BoundedResponses` is WSGI middleware around the whole app, so that no response is left out: JSON, pages, files, errors and
streams alike. `Connections` knows each of them until the kernel has taken its last byte, and cuts what outlasts a drain.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from bff.http import waiting
from bff.ops import metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SEND_BUFFER_BYTES: Final = 64 * 1024
"""The kernel doubles it, and otherwise lets it grow to megabytes."""
STALL_SECONDS: Final = 1.0
"""A client that has taken nothing for so long when a drain is about to end is cut then: it would not read a last event."""
POLL_SECONDS: Final = 0.05


class Exchange:
    """One request and its response."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.blocked_since = inf
        """The moment (monotonic) at which the server was given the piece that it is writing."""
        self.was_cut = False
        self._close: Callable[[], None] | None = None

    def respond(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        self._close = getattr(pieces, "close", None)
        return self._slices(pieces)

    def _slices(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The timeout is that of a whole write: a large body may take long, a slice of it may not."""
        try:
            for piece in pieces:
                for start in range(0, len(piece) or 1, SEND_BUFFER_BYTES):
                    self.blocked_since = monotonic()
                    yield piece[start : start + SEND_BUFFER_BYTES]
                    self.blocked_since = inf
            self.blocked_since = monotonic()  # The server may have an empty chunk to write, or only headers.
        finally:
            self.release()

    def release(self) -> None:
        """Closes what the app returned, once. Flask's own server does not when the client's last word is a reset."""
        close, self._close = self._close, None
        if close is not None:
            close()


class Connections:
    """The exchanges that are going on, and the connections that are kept alive between two of them."""

    def __init__(self, slow_seconds: float) -> None:
        self.slow_seconds = slow_seconds
        """A client that takes nothing for so long is cut off."""
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
        """`error`: what the server's write ended with."""
        with contextlib.suppress(OSError):  # Closed already.
            exchange.sock.settimeout(None)  # How long a next request may take has limits of its own.
        with self._lock:
            self._open.discard(exchange)
            self._idle.add(exchange.sock)
        if exchange.was_cut:
            metrics.CUT.labels("drained").inc()
        elif isinstance(error, TimeoutError):
            metrics.CUT.labels("slow").inc()

    def drain(self, seconds: float) -> None:
        """Returns when the last connection has ended, or cuts off who holds one up when the time is up.

        What comes on a connection that is kept alive is still answered meanwhile, with a refusal.
        """
        deadline = monotonic() + seconds
        self._wait(deadline - STALL_SECONDS)
        self._cut(stalled_for=STALL_SECONDS)
        self._wait(deadline)
        self._cut(stalled_for=0.0)
        for exchange in self._exchanges():
            _read_no_more(exchange.sock)  # A body that trickles ends; an app that works may still say so.
        for sock in self._kept_alive():
            _cut(sock)

    def _wait(self, deadline: float) -> None:
        while (self._open or self._kept_alive()) and (left := deadline - monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))

    def _cut(self, stalled_for: float) -> None:
        for exchange in self._exchanges():
            if monotonic() - exchange.blocked_since >= stalled_for:
                exchange.was_cut = True
                _cut(exchange.sock)

    def _exchanges(self) -> list[Exchange]:
        with self._lock:
            return list(self._open)

    def _kept_alive(self) -> list[socket.socket]:
        with self._lock:
            return [sock for sock in self._idle if sock.fileno() >= 0]


class BoundedResponses:
    """WSGI middleware. A caller in this process has no socket, and bounds of its own."""

    def __init__(self, app: "WSGIApplication", connections: Connections) -> None:
        self._app = app
        self._connections = connections

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        sock = waiting.client_socket(environ)
        if sock is None:
            return self._app(environ, start_response)
        exchange = self._connections.begin(sock)
        try:
            slices = exchange.respond(self._app(environ, start_response))
            limit_send_buffer(sock, self._connections.slow_seconds)
            return _Body(slices, exchange, self._connections)
        except BaseException:
            self._connections.end(exchange)
            raise


class _Body:
    """What the server iterates and closes. A file is iterated, too: under gevent gunicorn's `sendfile` does the same."""

    def __init__(self, slices: Any, exchange: Exchange, connections: Connections) -> None:
        self._slices = slices
        self._exchange = exchange
        self._connections = connections

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._slices)

    def close(self) -> None:
        try:
            self._slices.close()
            self._exchange.release()  # Slices that were never begun have not.
        finally:
            self._connections.end(self._exchange, sys.exc_info()[1])  # Servers close it while a write's error is raised.


def limit_send_buffer(sock: socket.socket, seconds: float) -> None:
    """What a reader that does not read can hold of us: a little memory of the kernel's, for `seconds`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
    sock.settimeout(seconds)


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _read_no_more(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
