"""Refused uploads: after a response that did not wait for the whole request, what still arrives is read and dropped.

Closing a socket with unread data resets the connection, and a reset makes the kernel of a client or proxy discard the response
that it has not read yet: nginx then answers 502. See RFC 9112, section 9.6.
"""

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from bff.http.request_body import MAX_LENGTH_DIGITS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_DROPPED_BYTES: Final = 64 * 1024 * 1024
"""More than MAX_BODY_BYTES and what proxies accept by default."""
MAX_IDLE_SECONDS: Final = 5.0
"""Without any data; nginx has the same `lingering_timeout`."""
RECV_BYTES: Final = 64 * 1024
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""A `struct linger` of no time: see socket(7)."""
YIELD_BYTES: Final = 1024 * 1024
"""Other greenlets run after each. Copied in less than a millisecond."""


class Upload:
    """The body of a request, as `wsgi.input`. It knows whether it was read to its end."""

    def __init__(self, stream: Any, length: int | None, *, server_reads_rest: bool) -> None:
        """`length`: bytes, None for a chunked body.

        `server_reads_rest`: Werkzeug's server does so before it closes the response, but only what arrives every 10 ms.
        """
        self._stream = stream
        self.server_reads_rest = server_reads_rest
        self._unread = length
        self.is_complete = length == 0
        self.response_has_length = False

    def observe(self, start_response: "StartResponse") -> "StartResponse":
        """Notes whether the response has a Content-Length."""

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            self.response_has_length = any(name.lower() == "content-length" for name, _ in headers)
            return start_response(status, headers, *exc_info)

        return start

    def read(self, size: int | None = None) -> bytes:
        data: bytes = self._stream.read() if size is None else self._stream.read(size)
        self._count(data, at_end=not data and size != 0)
        return data

    def readline(self, *size: int) -> bytes:
        data: bytes = self._stream.readline(*size)
        self._count(data, at_end=not data and size != (0,))
        return data

    def readlines(self, *hint: int) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _count(self, data: bytes, *, at_end: bool) -> None:
        if self._unread is not None:
            self._unread -= len(data)
        self.is_complete = self.is_complete or (at_end if self._unread is None else self._unread <= 0)


class UploadResponse:
    """Calls `drop_rest` after the response if the upload was not read to its end. No slot is held meanwhile."""

    def __init__(self, body: Any, upload: Upload, drop_rest: Callable[[], None]) -> None:
        """`body`: what a server iterates and closes."""
        self._body = body
        self._upload = upload
        self._drop_rest = drop_rest

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        if self._upload.server_reads_rest and self._upload.response_has_length:
            self._finish()

    def close(self) -> None:
        self._body.close()
        if sys.exc_info()[1] is None:  # Servers call `close` while they handle a write's error.
            self._finish()

    def _finish(self) -> None:
        if not self._upload.is_complete:
            self._upload.is_complete = True
            self._drop_rest()


def replace_input(environ: "WSGIEnvironment") -> Upload | None:
    """Replaces `wsgi.input`; None for a request without a body."""
    length, chunked = environ.get("CONTENT_LENGTH") or "", "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not chunked and not length.strip("0"):
        return None
    is_number = length.isascii() and length.isdecimal() and not chunked
    length_or_none = int(length[:MAX_LENGTH_DIGITS]) if is_number else None
    upload = Upload(environ["wsgi.input"], length_or_none, server_reads_rest="werkzeug.socket" in environ)
    environ["wsgi.input"] = upload
    return upload


def closes_connection(environ: "WSGIEnvironment") -> bool:
    """Whether the server closes the connection after the response. gunicorn_config.py adds the header to large uploads."""
    if "werkzeug.socket" in environ or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        return True
    return "close" in environ.get("HTTP_CONNECTION", "").lower()


def drop_rest(sock: socket.socket, seconds: float) -> None:
    """Closes the sending side, so that the client knows the response to be complete, and drops what it sends for `seconds`."""
    deadline, remaining = monotonic() + seconds, MAX_DROPPED_BYTES
    with contextlib.suppress(OSError):  # Reset by the client, or nothing arrived in time.
        sock.shutdown(socket.SHUT_WR)
        while remaining > 0 and (timeout := deadline - monotonic()) > 0:
            if remaining % YIELD_BYTES < RECV_BYTES:
                time.sleep(0)
            sock.settimeout(min(timeout, MAX_IDLE_SECONDS))
            if not (data := sock.recv(RECV_BYTES)):
                return
            remaining -= len(data)
    with contextlib.suppress(OSError):
        # Without data that nobody read, closing it would not reset it, and the client would wait for the window to open.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        sock.shutdown(socket.SHUT_RDWR)
