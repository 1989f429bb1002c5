"""An HTTP proxy that opens tunnels (CONNECT), as a company has between its servers and the internet."""

import contextlib
import socket
import threading
from typing import NamedTuple

from tests.listener import Listener


class Tunnel(NamedTuple):
    """What a client asked for."""

    target: str
    headers: dict[str, str]


class ConnectProxy(Listener):
    """`refusal`: the status line's end with which all tunnels are refused, such as "407 Proxy Authentication Required"."""

    def __init__(self, refusal: str = "") -> None:
        super().__init__()
        self._refusal = refusal
        self.tunnels: list[Tunnel] = []
        self.first_bytes: list[bytes] = []
        """Of what passed through each tunnel."""

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = client.recv(1)
                if not byte:
                    return
                head += byte
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            method, target, _ = first.split(" ")
            assert method == "CONNECT", first
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.tunnels.append(Tunnel(target, headers))
            if self._refusal:
                client.sendall(f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            host, _, port = target.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
                threading.Thread(target=self._copy, args=(client, server, True), daemon=True).start()
                self._copy(server, client)

    def _copy(self, source: socket.socket, target: socket.socket, is_request: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_request:
                    self.first_bytes.append(data[:200])
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
