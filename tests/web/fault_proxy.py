"""A TCP proxy that injects connection faults between a browser and a server: resets, silence, delays and refusals."""

import contextlib
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.listener import Listener
from tests.wire_server import RESET

LATE_SECONDS = 0.2


class Fault(NamedTuple):
    kind: str
    """none, refused, cut (a reset), ended (a clean close), silent (but open) or late."""
    after: int = 0
    """Bytes from the server that are passed on before the fault."""


def random_faults(seed: int, max_bytes: int) -> Callable[[], Fault]:
    """Nine of ten connections have a fault, within the first `max_bytes` bytes from the server."""
    generator = random.Random(seed)
    kinds = ["none", "late", "refused", "silent", *["cut"] * 4, *["ended"] * 2]
    return lambda: Fault(generator.choice(kinds), generator.randint(0, max_bytes))


class FaultProxy(Listener):
    """Forwards connections to `port`; `faults()` returns the fault of the next one."""

    def __init__(self, port: int, faults: Callable[[], Fault]) -> None:
        super().__init__(backlog=256)
        self.port = port
        self.seen: Counter[str] = Counter()
        """How often each kind of fault has occurred."""
        self._faults = faults
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.cut()

    def cut(self) -> None:
        """Closes all open connections."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, browser: socket.socket) -> None:
        with self._lock:
            fault = self._faults()
        with self._tracked(browser), contextlib.suppress(OSError):
            if fault.kind == "late":
                time.sleep(LATE_SECONDS)
            if fault.kind in {"late", "refused"}:
                self._count(fault)
            if fault.kind != "refused":
                server = socket.create_connection(("127.0.0.1", self.port), timeout=10)
                with self._tracked(server):
                    self._relay(browser, server, fault)
            if fault.kind in {"cut", "refused"}:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _relay(self, browser: socket.socket, server: socket.socket, fault: Fault) -> None:
        """Relays until one side closes or the fault occurs. One thread serves both, so that a reset takes effect at once."""
        remaining = fault.after if fault.kind in {"cut", "ended", "silent"} else 2**62
        while True:
            for source in select.select([browser, server], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                if source is browser:
                    server.sendall(data)
                    continue
                if remaining >= 0:
                    browser.sendall(data[:remaining])
                remaining -= len(data)
                if remaining < 0 <= remaining + len(data):
                    self._count(fault)
                if remaining < 0 and fault.kind != "silent":
                    return

    def _count(self, fault: Fault) -> None:
        with self._lock:
            self.seen[fault.kind] += 1

    @contextlib.contextmanager
    def _tracked(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()
