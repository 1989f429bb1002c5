"""Waits for a response's head with the caller's waiter instead of blocking inside the library."""

import socket
import ssl
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Final, NamedTuple

from bff.errors import UpstreamTimeout
from bff.http import waiting
from bff.http.waiting import Waiter

READ_BYTES: Final = 65536


class ResponseWait(NamedTuple):
    waiter: Waiter | None
    """None: a new one is created."""
    deadline: float
    """A moment (monotonic)."""


response_wait: ContextVar[ResponseWait | None] = ContextVar("response_wait", default=None)
"""Set while a request is sent."""


@contextmanager
def response_waiter() -> Iterator[Waiter]:
    """The caller's waiter, or a new one. Its heartbeats are suspended: the caller cannot send them meanwhile."""
    current = response_wait.get()
    if current is None or current.waiter is None:
        with closing(waiting.new_waiter()) as waiter:
            yield waiter
        return
    waiter = current.waiter
    wake_at, waiter.wake_at = waiter.wake_at, inf
    try:
        yield waiter
    finally:
        waiter.wake_at = min(wake_at, waiter.wake_at)


def receive_all(sock: socket.socket) -> Generator[bytes]:
    """A response's bytes as they arrive, b"" at the end. Makes the socket non-blocking.

    Raises UpstreamTimeout at the request's deadline, and the reason if the waiter is cancelled; the library then closes the
    connection.
    """
    deadline = _deadline(sock)
    sock.settimeout(0)
    with response_waiter() as waiter:
        wake_at = waiter.wake_at
        try:
            while True:
                if (data := receive(sock)) is not None:
                    yield data
                    continue
                if monotonic() >= deadline:
                    raise UpstreamTimeout(detail="no response in time")
                waiter.wait(sock, deadline)
                # A client's FIN sets `wake_at` to the past; the caller can only react after this wait.
                wake_at, waiter.wake_at = min(wake_at, waiter.wake_at), inf
        finally:
            waiter.wake_at = min(wake_at, waiter.wake_at)


def _deadline(sock: socket.socket) -> float:
    """The request's deadline (monotonic), or else the library's timeout."""
    if (current := response_wait.get()) is not None:
        return current.deadline
    seconds = sock.gettimeout()
    return inf if seconds is None else monotonic() + seconds


def receive(sock: socket.socket) -> bytes | None:
    """Bytes from a non-blocking socket; None if there are none, b"" at the end."""
    try:
        data = sock.recv(READ_BYTES)
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            data += sock.recv(READ_BYTES)  # Already decrypted; the socket would not become readable.
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    return data
