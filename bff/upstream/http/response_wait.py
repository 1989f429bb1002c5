"""Waiting for an answer's head where the one who asked waits, and not in the library."""

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
    """None: one is made for it."""
    deadline: float
    """A moment (monotonic)."""


response_wait: ContextVar[ResponseWait | None] = ContextVar("response_wait", default=None)
"""Of the request that is being made."""


@contextmanager
def response_waiter() -> Iterator[Waiter]:
    """Where the one who asks waits for the answer; what else it has to say there it says afterwards."""
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


def received(sock: socket.socket) -> Generator[bytes]:
    """An answer's bytes as they come, b"" once it has ended. The socket does not block any more afterwards.

    Raises UpstreamTimeout at the moment by which the answer must have come, and whatever ends the watch; the library closes
    the connection then.
    """
    deadline = _moment(sock)
    sock.settimeout(0)
    with response_waiter() as waiter:
        wake_at = waiter.wake_at
        try:
            while True:
                if (data := receive(sock)) is not None:
                    yield data
                    continue
                if monotonic() >= deadline:
                    raise UpstreamTimeout(detail="no answer in time")
                waiter.wait(sock, deadline)
                # Awake for what the stream has to say meanwhile, it could only wait again at once.
                wake_at, waiter.wake_at = min(wake_at, waiter.wake_at), inf
        finally:
            waiter.wake_at = min(wake_at, waiter.wake_at)


def _moment(sock: socket.socket) -> float:
    """By which the answer must have come; by the library's own timeout where nobody has said."""
    if (current := response_wait.get()) is not None:
        return current.deadline
    seconds = sock.gettimeout()
    return inf if seconds is None else monotonic() + seconds


def receive(sock: socket.socket) -> bytes | None:
    """What has come; None when nothing has, b"" at the end. The socket must not block."""
    try:
        data = sock.recv(READ_BYTES)
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            data += sock.recv(READ_BYTES)  # Decrypted already: the socket would not become readable for it.
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    return data
