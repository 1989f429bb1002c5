"""Waiting on plain threads."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from math import inf
from time import monotonic

from bff.http.waiting.base import RESET_SECONDS, HasDescriptor, Watch


class PollWatch(Watch):
    """One `poll` over both sockets and a pair of our own, to be woken by."""

    def __init__(self, browser: socket.socket | None) -> None:
        super().__init__(browser)
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._watched = browser
        self._reset_at = inf

    def _sleep(self, upstream: HasDescriptor | None, until: float) -> None:
        poll = select.poll()
        for watched in (self._bell, upstream, self._watched):
            if watched is not None:
                poll.register(watched.fileno(), select.POLLIN)
        seconds = min(until, self._reset_at) - monotonic()
        ready = {fd for fd, _ in poll.poll(None if seconds == inf else max(0.0, seconds * 1000))}
        if self._bell.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
        if monotonic() >= self._reset_at:
            self._reset_at = inf
            self._look_for_reset()
        if self._watched is not None and self._watched.fileno() in ready:
            self._watched = None
            if self._browser_spoke():
                self._reset_at = monotonic() + RESET_SECONDS

    def wake(self) -> None:
        self._woken = True
        with contextlib.suppress(OSError):  # Full: rung already. Closed: the stream is over.
            self._ringer.send(b"!")

    def close(self) -> None:
        self._bell.close()
        self._ringer.close()


class ThreadTimer(threading.Timer):
    """One that runs."""

    def __init__(self, seconds: float, do: Callable[[], None]) -> None:
        super().__init__(seconds, do)
        self.daemon = True
        self.start()
