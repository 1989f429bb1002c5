"""A proxy that resets a connection as soon as the response contains a given word.

The word is in the request's header X-Cut. Each user's connection is reset once.
"""

import contextlib
import re
import socket
import threading

from tests.listener import Listener
from tests.wire_server import RESET

BALANCER_COOKIES = (
    b"Set-Cookie: AWSALB=a; Path=/\r\nSet-Cookie: AWSALBCORS=b; Path=/\r\nSet-Cookie: __cf_bm=c; Path=/; HttpOnly\r\n"
)


class CuttingProxy(Listener):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._cut_users: set[bytes] = set()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            cut_words: list[bytes] = []
            threading.Thread(target=self._forward_request, args=(client, server, cut_words), daemon=True).start()
            tail = b""
            while piece := self._alter(server.recv(65536)):
                tail = tail[-100:] + piece
                client.sendall(piece)
                if cut_words and cut_words[0] in tail:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    client.shutdown(socket.SHUT_RD)  # While another thread reads, the kernel keeps the socket open.
                    return

    def _alter(self, piece: bytes) -> bytes:
        """Replaces the header as a platform's router does.

        With "Connection: close", Node's fetch takes the end of the connection for the end of the response, even if it is
        chunked. Browsers do not.
        """
        return piece.replace(b"Connection: close", b"Connection: keep-alive")

    def _forward_request(self, client: socket.socket, server: socket.socket, cut_words: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                cut, user = re.search(rb"(?i)x-cut: (\S+)", piece), re.search(rb"(?i)x-forwarded-user: (\S+)", piece)
                if cut and user and user[1] not in self._cut_users:
                    self._cut_users.add(user[1])
                    cut_words[:] = [cut[1]]
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)


class StickyBalancer(CuttingProxy):
    """A load balancer that sets cookies of its own, as AWS's and Cloudflare's do."""

    def _alter(self, piece: bytes) -> bytes:
        return re.sub(rb"^(HTTP/1\.1 [^\r]*\r\n)", rb"\1" + BALANCER_COOKIES, piece)
