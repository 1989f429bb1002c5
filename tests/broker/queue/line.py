"""A line to a server that is cut at the moment a test asks for: a TCP proxy."""

import contextlib
import select
import socket
import threading


class Line:
    """Leads from `port` to `target`, both on this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._lost = self._last = b""
        self.losses = 0
        threading.Thread(target=self._accept, name="line", daemon=True).start()

    def lose_the_answer_to(self, entries: bytes) -> None:
        """The next request with these words in it reaches the server, and the line is cut before the answer comes."""
        self._lost = entries

    def be_cut_after(self, entries: bytes) -> None:
        """The next request with these words in it is answered; nothing after it gets through, on any connection."""
        self._last = entries

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # Wakes whoever accepts.
        self._listener.close()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._lead, args=(client,), name="line", daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, contextlib.suppress(OSError):
            while self._pass_on(client, server):
                pass

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Whether the line is still there."""
        ready, _, _ = select.select([client, server], [], [])
        if server in ready:
            message = server.recv(65536)
            client.sendall(message)
            return bool(message)
        asked = client.recv(65536)
        lost = bool(self._lost) and self._lost in asked
        last = bool(self._last) and self._last in asked
        server.sendall(asked)
        if lost or last:
            self._lost = self._last = b""
            self.losses += 1
            answer = server.recv(65536)
            if last:
                self.close()
                client.sendall(answer)
            return False
        return bool(asked)
