"""A server that sends exactly the given bytes, waits, and disconnects, for everything that an HTTP library would not send.

    with WireServer([stream_head(), chunk(b"data: {}\\n\\n"), 0.2, CUT]) as server: ...

A reply is a list of steps, or a function that makes one from the request. The first request gets the first reply; the last
reply serves all requests after that. Requests for a broker's queue are answered separately, as by a broker that numbers its
events.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

CUT = object()
"""Reset the connection."""
END = object()
"""Close it cleanly; also what happens after the last step."""
RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER option that makes `close` reset the connection."""
HANG = object()
"""Send nothing until the client disconnects or the server is stopped."""


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Iterable[Any] | Callable[[Request], Iterable[Any]]


def reply(body: bytes = b"", status: str = "200 OK", content_type: str = "application/json", **headers: str) -> bytes:
    """A complete HTTP response. Underscores in header names become hyphens."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def stream_head(content_type: str = "text/event-stream", *, chunked: bool = True, **headers: str) -> bytes:
    fields = {"Content-Type": content_type, **({"Transfer-Encoding": "chunked"} if chunked else {}), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"
NUMBERED = b'{"queue_length": 0, "is_processing": false, "current_message_id": null, "messages": []}'
UNNUMBERED = b'{"queue_length": 0, "is_processing": false, "current_message_id": null}'
"""The queue of a broker that numbers its events, and of one that does not."""


class WireServer:
    def __init__(
        self, *replies: Reply, tls: ssl.SSLContext | None = None, queue: bytes | None = NUMBERED, port: int = 0
    ) -> None:
        """`queue`: the response to requests for a broker's queue; None: they are handled like other requests."""
        self._queue = queue
        self._replies = list(replies)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self.requests: list[Request] = []
        self.hung_up = 0
        """Connections that the client closed before the server did."""

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self._listener.getsockname()[1]}"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 5.0) -> bool:
        """Whether `condition` came true in time. It is checked when a request arrives or a connection closes."""
        with self._changed:
            return bool(self._changed.wait_for(condition, seconds))

    def __enter__(self) -> "WireServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            stack.callback(connection.close)
            with self._lock:
                self._open.add(connection)
            stack.callback(self._forget, connection)
            while (request := self._read_request(connection)) is not None:
                if self._queue is not None and request.path.startswith("/api/v1/queue/"):
                    connection.sendall(reply(self._queue))
                    continue
                with self._changed:
                    next_reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
                    self.requests.append(request)
                    self._changed.notify_all()
                if not self._play(connection, next_reply(request) if callable(next_reply) else next_reply):
                    return

    def _read_request(self, connection: socket.socket) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip(" \t") for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            piece = connection.recv(65536)
            if not piece:
                return None
            body += piece
        method, path, _ = first.split(" ")
        return Request(method, path, headers, body)

    def _play(self, connection: socket.socket, steps: Iterable[Any]) -> bool:
        """Returns whether the connection can serve another request."""
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, float | int):
                self._stopping.wait(step)
            elif isinstance(step, threading.Event):
                step.wait(10)
            elif step is CUT:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return False
            elif step is HANG:
                self._wait_for_hang_up(connection)
                return False
            elif step is END:
                return False
        return True

    def _wait_for_hang_up(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        with self._changed:
            self.hung_up += 1
            self._changed.notify_all()

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()
