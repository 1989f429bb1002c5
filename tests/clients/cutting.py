"""A line that breaks: passes a connection on to a server, and resets it once a word has come back.

The word stands in the request's header X-Cut. Each user's line breaks once.
"""

import contextlib
import re
import socket
import threading

from tests.wire_server import RESET


class CuttingLine:
    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut: set[bytes] = set()

    def __enter__(self) -> "CuttingLine":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            words: list[bytes] = []
            threading.Thread(target=self._ask, args=(client, server, words), daemon=True).start()
            said = b""
            # As a platform's router does. Node's fetch takes the end of a connection that was to be closed for the end of the
            # answer, even of a chunked one; browsers do not.
            while piece := server.recv(65536).replace(b"Connection: close", b"Connection: keep-alive"):
                said = said[-100:] + piece
                client.sendall(piece)
                if words and words[0] in said:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    client.shutdown(socket.SHUT_RD)  # While somebody reads, the kernel keeps it open.
                    return

    def _ask(self, client: socket.socket, server: socket.socket, words: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                cut, user = re.search(rb"(?i)x-cut: (\S+)", piece), re.search(rb"(?i)x-forwarded-user: (\S+)", piece)
                if cut and user and user[1] not in self._cut:
                    self._cut.add(user[1])
                    words[:] = [cut[1]]
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
