"""A TCP proxy that cuts its connections when a test asks for it."""

import contextlib
import select
import socket
import threading


class Line:
    """Forwards connections from `port` to `target`, both on this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._drop_reply_to = self._close_after = b""
        self.cuts = 0
        threading.Thread(target=self._accept, name="line", daemon=True).start()

    def drop_reply_to(self, content: bytes) -> None:
        """Forwards the next request that contains `content`, and closes its connection instead of forwarding the reply."""
        self._drop_reply_to = content

    def close_after(self, content: bytes) -> None:
        """Forwards the next request that contains `content` and its reply; then nothing more, on any connection."""
        self._close_after = content

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # Wakes the accepting thread.
        self._listener.close()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward_all, args=(client,), name="line", daemon=True).start()

    def _forward_all(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            while self._forward(client, server):
                pass

    def _forward(self, client: socket.socket, server: socket.socket) -> bool:
        """Forwards what is readable. Returns whether the connection stays open."""
        ready, _, _ = select.select([client, server], [], [])
        if server in ready:
            reply = server.recv(65536)
            client.sendall(reply)
            return bool(reply)
        request = client.recv(65536)
        drop_reply = bool(self._drop_reply_to) and self._drop_reply_to in request
        close = bool(self._close_after) and self._close_after in request
        server.sendall(request)
        if drop_reply or close:
            self._drop_reply_to = self._close_after = b""
            self.cuts += 1
            reply = server.recv(65536)
            if close:
                self.close()
                client.sendall(reply)
            return False
        return bool(request)
