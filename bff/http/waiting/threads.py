"""Waiting on plain threads."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from math import inf
from time import monotonic

from bff.http.waiting.base import RESET_SECONDS, HasDescriptor, Waiter


class ThreadWaiter(Waiter):
    """One `poll` over the upstream's socket, the client's, and a socket pair that `wake` writes to."""

    def __init__(self, client: socket.socket | None) -> None:
        super().__init__(client)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._polled_client = client
        self._reset_at = inf

    def _sleep(self, upstream: HasDescriptor | None, deadline: float) -> None:
        poll = select.poll()
        for polled in (self._wake_reader, upstream, self._polled_client):
            if polled is not None:
                poll.register(polled.fileno(), select.POLLIN)
        seconds = min(deadline, self._reset_at) - monotonic()
        ready = {fd for fd, _ in poll.poll(None if seconds == inf else max(0.0, seconds * 1000))}
        if self._wake_reader.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)
        if monotonic() >= self._reset_at:
            self._reset_at = inf
            self._check_for_reset()
        if self._polled_client is not None and self._polled_client.fileno() in ready:
            self._polled_client = None
            if self._client_is_readable():
                self._reset_at = monotonic() + RESET_SECONDS

    def wake(self) -> None:
        self._woken = True
        with contextlib.suppress(OSError):  # The buffer is full: woken already. Or closed: the stream is over.
            self._wake_writer.send(b"!")

    def close(self) -> None:
        self._wake_reader.close()
        self._wake_writer.close()


class ThreadTimer(threading.Timer):
    """A daemon timer, started at once."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        super().__init__(seconds, callback)
        self.daemon = True
        self.start()
