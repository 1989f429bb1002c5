"""A proxy with one fault, in front of a real server: what a check must notice.

It serves one request on each connection, as the judge asks for. Hooks of a Fault change requests, heads, frames and bodies;
by default they change nothing.
"""

import contextlib
import http.client
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tests.listener import Listener
from tests.live import PROXY_SECRET
from tests.wire_server import LAST_CHUNK, RESET, chunk

Headers = dict[str, str]
"""Names in lower case."""
BODY_LIMIT = 1 << 20
"""Of a longer request only the head is passed on."""


class Request(NamedTuple):
    method: str
    path: str
    headers: Headers
    body: bytes

    @property
    def is_resume(self) -> bool:
        return self.method == "GET" and "last-event-id" in self.headers

    @property
    def is_follow(self) -> bool:
        return self.method == "GET" and "/stream/" in self.path

    @property
    def is_message(self) -> bool:
        return self.method == "POST" and self.path.endswith("/stream")

    @property
    def is_stop(self) -> bool:
        return self.path.endswith("/stop")

    def encode(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Head(NamedTuple):
    status: int
    headers: Headers


def unchanged(_: Request, value: object) -> object:
    return value


class Fault(NamedTuple):
    request: Callable[[Request], Request | bytes] = lambda request: request
    """Returns bytes to respond with them, without the server."""
    head: Callable[[Request, Head], Head] = lambda _, head: head
    frames: Callable[[Request, Iterator[bytes]], Iterable[bytes]] = lambda _, frames: frames
    """Of an event stream; what it yields is sent at once."""
    body: Callable[[Request, bytes], bytes] = lambda _, body: body
    """Of a response that is no stream."""
    cut_at_end: bool = False
    """Whether streams end without their last chunk."""
    send_seconds: float | None = None
    """How long a client may read nothing."""
    stop_on_leave: bool = False
    """Whether a reader that leaves ends the reply."""
    after_head: bytes = b""
    """Sent after the response to a HEAD."""


class Proxy(Listener):
    def __init__(self, port: int, fault: Fault) -> None:
        """`port`: of the real server."""
        super().__init__(backlog=256)
        self._fault = fault
        self._port = port

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, http.client.HTTPException):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = self._fault.request(read_request(client))
            if isinstance(request, bytes):
                client.sendall(request)
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                server.sendall(request.encode())
                with contextlib.closing(http.client.HTTPResponse(server, method=request.method)) as response:
                    response.begin()
                    self._respond(client, self._fault, request, response)

    def _respond(self, client: socket.socket, fault: Fault, request: Request, response: http.client.HTTPResponse) -> None:
        headers = {name.lower(): value for name, value in response.getheaders()}
        is_stream = headers.get("content-type", "").startswith("text/event-stream") and request.method != "HEAD"
        head = fault.head(request, Head(response.status, headers))
        if not is_stream:
            body = fault.body(request, response.read())
            if head.status != 204 and request.method != "HEAD":
                head.headers["content-length"] = str(len(body))
            client.sendall(encode_head(head) + (fault.after_head if request.method == "HEAD" else body))
            return
        if fault.send_seconds:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            client.settimeout(fault.send_seconds)
        head.headers.pop("content-length", None)
        head.headers["transfer-encoding"] = "chunked"
        client.sendall(encode_head(head))
        self._stream(client, fault, request, response)

    def _stream(self, client: socket.socket, fault: Fault, request: Request, response: http.client.HTTPResponse) -> None:
        try:
            for frame in fault.frames(request, frames_of(response)):
                client.sendall(chunk(frame))
        except OSError:
            if fault.stop_on_leave:
                self._stop(request, response.getheader("X-Message-ID", ""))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raise
        if not fault.cut_at_end:
            client.sendall(LAST_CHUNK)

    def _stop(self, request: Request, message_id: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        names = ("x-proxy-secret", "x-forwarded-user")
        with contextlib.closing(connection):
            headers = {name: request.headers[name] for name in names}
            connection.request("POST", f"/api/chat/stream/{message_id}/stop", headers=headers)
            connection.getresponse().read()


def read_request(client: socket.socket) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(client)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", 0))
    while len(body) < length <= BODY_LIMIT:
        body += receive(client)
    method, path, _ = first.split(" ")
    return Request(method, path, headers, body)


def receive(client: socket.socket) -> bytes:
    if not (data := client.recv(65536)):
        raise ConnectionResetError
    return data


def encode_head(head: Head) -> bytes:
    lines = [f"HTTP/1.1 {head.status} {http.client.responses[head.status]}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in head.headers.items()), "", ""]).encode("latin-1")


def frames_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    rest = b""
    while data := response.read1(65536):
        *complete, rest = re.split(rb"(?<=\n\n)", rest + data)
        yield from complete


def response(status: int, body: bytes = b"", content_type: str = "application/json") -> bytes:
    headers = {"content-type": content_type, "content-length": str(len(body)), "connection": "close"}
    return encode_head(Head(status, headers)) + body


CREDENTIALS = {"x-proxy-secret": PROXY_SECRET}
