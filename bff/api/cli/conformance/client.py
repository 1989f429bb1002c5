"""A strict HTTP/1.1 client on sockets (RFC 9112) that shows a response as it arrives, and whether it ended or was cut.

HTTP libraries hide what is judged here: when bytes arrive, how a body ends, invalid chunks, and a client that stops reading.
"""

import json
import re
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

READ_BYTES: Final = 65536
MAX_HEAD_BYTES: Final = 65536
CONNECT_SECONDS: Final = 10.0
RESET: Final = struct.pack("ii", 1, 0)
"""The SO_LINGER option with which `close` sends a reset, as a crashed client's network does."""
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?")


class ClientError(Exception):
    """A request did not lead to a valid response; the text says why."""


class Unreachable(ClientError):
    """No connection could be made."""


class TimedOut(ClientError):
    """The server sent nothing more in time."""


class Address(NamedTuple):
    """Of a server, and the path below which its routes are."""

    host: str
    port: int
    tls: bool
    prefix: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be http://host[:port][/prefix], or https://")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """Tries the host's addresses in turn: `localhost` may be an IPv6 address on which nothing listens.

        `receive_buffer`: bytes, to be a client whose network takes up little; 0 for the system's default.

        Raises Unreachable.
        """
        problems = []
        for family, address in self._addresses():
            try:
                return self._connect(socket.socket(family, socket.SOCK_STREAM), address, receive_buffer)
            except OSError as error:  # Those of TLS are OSErrors, too.
                problems.append(str(error))
        raise Unreachable(f"no connection to {self.authority}: {'; '.join(problems)}")

    def _addresses(self) -> list[tuple[int, Any]]:
        """Families, and what their sockets connect to. Raises Unreachable."""
        try:
            infos = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"{self.host} has no address: {error}") from error
        return [(info[0], info[4]) for info in infos]

    def _connect(self, sock: socket.socket, address: Any, receive_buffer: int) -> socket.socket:
        try:
            sock.settimeout(CONNECT_SECONDS)
            if receive_buffer:  # Before connecting, as it decides on the window that is offered.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return ssl.create_default_context().wrap_socket(sock, server_hostname=self.host) if self.tls else sock
        except BaseException:
            sock.close()
            raise


class Request(NamedTuple):
    method: str
    path: str
    """Below the address's prefix, with the query."""
    headers: Mapping[str, str]
    body: bytes | None = None
    receive_buffer: int = 0
    """See Address.connect."""

    def encode(self, address: Address) -> bytes:
        """Sets Host, and Content-Length if there is a body and no header frames it. Values are sent as UTF-8."""
        fields = {"Host": address.authority, "Connection": "close", **self.headers}
        if self.body is not None and not {"content-length", "transfer-encoding"} & {name.lower() for name in fields}:
            fields["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {address.prefix}{self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + (self.body or b"")


class Response:
    """`with` closes the connection."""

    def __init__(self, sock: socket.socket, method: str) -> None:
        self._sock = sock
        self._method = method
        self._pending = b""
        self._remaining = 0
        """Bytes of the current chunk, or of a body with a declared length."""
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.ended = ""
        """"clean" or "cut" once the body has ended, "closed" by the server for a body that ends with the connection."""

    def header(self, name: str) -> str:
        """Values of a repeated header are joined; "" if it is missing."""
        return ", ".join(value for key, value in self.headers if key == name.lower())

    def send_request(self, data: bytes) -> None:
        """A server may refuse a request before it has read all of it: then its response counts."""
        with suppress(OSError):
            self._sock.sendall(data)

    def read_head(self, deadline: float) -> None:
        """Skips interim responses. Raises ClientError."""
        while self.status < 200:
            while (end := self._pending.find(b"\r\n\r\n")) < 0:
                if len(self._pending) > MAX_HEAD_BYTES or not (data := self._receive(deadline)):
                    raise ClientError(f"the response has no complete head, only {self._pending[:80]!r}")
                self._pending += data
            head, self._pending = self._pending[:end], self._pending[end + 4 :]
            self._parse_head(head)
        self._begin_body()

    def _parse_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        if not (match := _STATUS_LINE.fullmatch(first)):
            raise ClientError(f"the status line is invalid: {first[:80]!r}")
        self.status, self.headers = int(match[1]), []
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name != name.strip():
                raise ClientError(f"a header line is invalid: {line[:80]!r}")
            self.headers.append((name.lower(), value.strip(" \t")))

    def _begin_body(self) -> None:
        length = self.header("content-length")
        if self._method == "HEAD" or self.status in {204, 304}:
            self.ended = "clean"
        elif self._is_chunked and length:
            raise ClientError("the response has a Content-Length and is chunked: it can be read in two ways")
        elif not self._is_chunked and length:
            if not length.isdecimal():
                raise ClientError(f"the Content-Length is invalid: {length!r}")
            self._remaining = int(length)
            self.ended = "" if self._remaining else "clean"

    @property
    def _is_chunked(self) -> bool:
        return self.header("transfer-encoding").lower() == "chunked"

    def read(self, deadline: float) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" once `ended` is set. Raises ClientError."""
        piece = b"" if self.ended else self._take()
        while not piece and not self.ended:
            data = self._receive(deadline)
            self._pending += data
            if not data:
                self.ended = "cut" if self._is_chunked or self._remaining else "closed"
            piece = self._take()
        return piece

    def _take(self) -> bytes:
        """The bytes of the body that have been received. Sets `ended` after the last ones."""
        if self._is_chunked:
            return b"".join(self._chunks())
        piece, self._pending = self._pending, b""
        if self.header("content-length"):
            piece = piece[: self._remaining]
            self._remaining -= len(piece)
            self.ended = self.ended if self._remaining else "clean"
        return piece

    def _chunks(self) -> Iterator[bytes]:
        """Only what is complete, but parts of a large chunk as they arrive."""
        while not self.ended:
            if self._remaining > 2:
                size = min(len(self._pending), self._remaining - 2)
                piece, self._pending = self._pending[:size], self._pending[size:]
                self._remaining -= size
                yield piece
            if self._remaining == 2 and len(self._pending) >= 2:
                self._expect_line_end()
            if self._remaining or not self._begin_chunk():
                return

    def _expect_line_end(self) -> None:
        if self._pending[:2] != b"\r\n":
            raise ClientError(f"a chunk is not followed by CRLF but by {self._pending[:2]!r}")
        self._pending, self._remaining = self._pending[2:], 0

    def _begin_chunk(self) -> bool:
        """False if the line with its size, or the empty line after the last chunk, has not been received yet."""
        line, end, rest = self._pending.partition(b"\r\n")
        if not end or (line.strip(b"0") == b"" and len(rest) < 2):
            return False
        if not (match := _CHUNK_SIZE.fullmatch(line)):
            raise ClientError(f"a chunk's size is invalid: {line[:40]!r}")
        size = int(match[1], 16)
        if size:
            self._pending, self._remaining = rest, size + 2
        elif rest.startswith(b"\r\n"):
            self._pending, self.ended = b"", "clean"
        else:
            raise ClientError(f"the last chunk is followed by {rest[:40]!r}")
        return True

    def _receive(self, deadline: float) -> bytes:
        """b"" if the server has ended the connection, or reset it."""
        if (remaining := deadline - monotonic()) <= 0:
            raise TimedOut("the response was not complete in time")
        self._sock.settimeout(remaining)
        try:
            return self._sock.recv(READ_BYTES)
        except TimeoutError as error:
            raise TimedOut(f"the response was not complete in time, and silent for the last {remaining:.1f} s") from error
        except OSError:
            return b""

    def read_all(self, deadline: float) -> bytes:
        """The rest of the body. Raises ClientError, also for a body that was cut."""
        body = b"".join(iter(lambda: self.read(deadline), b""))
        if self.ended == "cut":
            raise ClientError("the response was cut")
        return body

    def is_silent(self, deadline: float) -> bool:
        """Whether the server ends the connection without another byte, after a response that has no body."""
        try:
            return not self._pending and self._receive(deadline) == b""
        except TimedOut:
            return False

    def read_json(self, deadline: float) -> Any:
        """Raises ClientError."""
        body = self.read_all(deadline)
        try:
            return json.loads(body)
        except ValueError as error:
            raise ClientError(f"the body is not JSON: {body[:80]!r}") from error

    def reset(self) -> None:
        """Closes the connection as a lost network does."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def send(address: Address, request: Request, deadline: float) -> Response:
    """Returns once the head was received. `deadline` is monotonic. Raises ClientError."""
    response = Response(address.connect(request.receive_buffer), request.method)
    try:
        response.send_request(request.encode(address))
        response.read_head(deadline)
    except BaseException:
        response.close()
        raise
    return response
