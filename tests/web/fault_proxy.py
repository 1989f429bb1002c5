"""The line between a browser and a server, as bad as lines get: cut, half closed, silent, late, or never open."""

import contextlib
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.wire_server import RESET

LATE_SECONDS = 0.2


class Fault(NamedTuple):
    kind: str
    """none, refused, cut (a reset), ended (as if all had been said), silent (and open) or late."""
    after: int = 0
    """So many bytes of what the server says."""


def bad_line(seed: int, most: int) -> Callable[[], Fault]:
    """Nine of ten connections have a fault, somewhere in the first `most` bytes of what the server says."""
    dice = random.Random(seed)
    kinds = ["none", "late", "refused", "silent", *["cut"] * 4, *["ended"] * 2]
    return lambda: Fault(dice.choice(kinds), dice.randint(0, most))


class FaultProxy:
    """Passes connections on to `port`; `faults()` says what is to happen to the next one."""

    def __init__(self, port: int, faults: Callable[[], Fault]) -> None:
        self.port = port
        self.seen: Counter[str] = Counter()
        """How often each kind of fault has come true."""
        self._faults = faults
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """All connections that are open now."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                with self._lock:
                    fault = self._faults()
                threading.Thread(target=self._pass_on, args=(browser, fault), daemon=True).start()

    def _pass_on(self, browser: socket.socket, fault: Fault) -> None:
        with self._kept(browser), contextlib.suppress(OSError):
            if fault.kind == "late":
                time.sleep(LATE_SECONDS)
            if fault.kind in {"late", "refused"}:
                self._note(fault)
            if fault.kind != "refused":
                server = socket.create_connection(("127.0.0.1", self.port), timeout=10)
                with self._kept(server):
                    self._talk(browser, server, fault)
            if fault.kind in {"cut", "refused"}:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _talk(self, browser: socket.socket, server: socket.socket, fault: Fault) -> None:
        """Until one of them hangs up, or the fault comes true. One thread for both, so that a reset is one at once."""
        left = fault.after if fault.kind in {"cut", "ended", "silent"} else 2**62
        while True:
            for source in select.select([browser, server], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                if source is browser:
                    server.sendall(data)
                    continue
                if left >= 0:
                    browser.sendall(data[:left])
                left -= len(data)
                if left < 0 <= left + len(data):
                    self._note(fault)
                if left < 0 and fault.kind != "silent":
                    return

    def _note(self, fault: Fault) -> None:
        with self._lock:
            self.seen[fault.kind] += 1

    @contextlib.contextmanager
    def _kept(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()
