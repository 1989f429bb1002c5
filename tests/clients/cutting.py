"""A proxy that breaks connections in the middle of a response, as the request's headers say.

- X-Cut: resets it as soon as the response contains this word; one connection of each user.
- X-Cut-Frame: closes it after this many frames of an event stream; one connection of each user.
- X-Cut-Each: the same, but each connection.
"""

import contextlib
import re
import socket
import threading
from typing import NamedTuple

from tests.listener import Listener
from tests.wire_server import RESET

BALANCER_COOKIES = (
    b"Set-Cookie: AWSALB=a; Path=/\r\nSet-Cookie: AWSALBCORS=b; Path=/\r\nSet-Cookie: __cf_bm=c; Path=/; HttpOnly\r\n"
)


class Cut(NamedTuple):
    end: re.Pattern[bytes]
    """Matches a response up to where it is cut."""
    each: bool
    after_frame: bool

    @classmethod
    def of(cls, request: bytes) -> "Cut | None":
        match = re.search(rb"(?i)x-cut(-frame|-each)?: (\S+)", request)
        if match is None:
            return None
        text = rb"(?s).*?" + re.escape(match[2]) if match[1] is None else rb"(?s)(?:.*?\n\n){%s}" % match[2]
        return cls(re.compile(text), each=(match[1] or b"").lower() == b"-each", after_frame=match[1] is not None)

    def position(self, response: bytes) -> int:
        """-1 if the response has not got there."""
        match = self.end.match(response)
        return match.end() if match else -1


class CuttingProxy(Listener):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._cut_users: set[bytes] = set()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            cuts: list[Cut] = []
            threading.Thread(target=self._forward_request, args=(client, server, cuts), daemon=True).start()
            response = b""
            while piece := self._alter(server.recv(65536)):
                piece = self._as_kept_alive(piece) if cuts else piece
                response += piece
                end = cuts[0].position(response) if cuts else -1
                client.sendall(piece if end < 0 else piece[: len(piece) - (len(response) - end)])
                if end >= 0:
                    if not cuts[0].after_frame:  # A reset may discard what the client has not read.
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    client.shutdown(socket.SHUT_RD)  # While another thread reads, the kernel keeps the socket open.
                    return

    def _alter(self, piece: bytes) -> bytes:
        return piece

    def _as_kept_alive(self, piece: bytes) -> bytes:
        """Replaces the header as a platform's router does.

        With "Connection: close", Node's fetch takes the end of the connection for the end of the response, even if it is
        chunked. Browsers do not. Only for connections to be cut: Node would send its next request on any other.
        """
        return piece.replace(b"Connection: close", b"Connection: keep-alive")

    def _forward_request(self, client: socket.socket, server: socket.socket, cuts: list[Cut]) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                cut, user = Cut.of(piece), re.search(rb"(?i)x-forwarded-user: (\S+)", piece)
                if cut and user and (cut.each or user[1] not in self._cut_users):
                    self._cut_users.add(user[1])
                    cuts[:] = [cut]
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)


class StickyBalancer(CuttingProxy):
    """A load balancer that sets cookies of its own, as AWS's and Cloudflare's do."""

    def _alter(self, piece: bytes) -> bytes:
        return re.sub(rb"^(HTTP/1\.1 [^\r]*\r\n)", rb"\1" + BALANCER_COOKIES, piece)
