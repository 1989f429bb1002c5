"""Waiting for an answer's first byte where the one who asked waits, and not in the library."""

import io
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import NamedTuple

from bff.errors import UpstreamTimeout
from bff.ops import hub
from bff.ops.hub import Watch


class Patience(NamedTuple):
    watch: Watch
    until: float
    """A moment (monotonic)."""


patience: ContextVar[Patience | None] = ContextVar("patience", default=None)
"""Of the request that is being made; None to wait in the library."""


@contextmanager
def asking() -> Iterator[Watch]:
    """Where the one who asks waits for the answer; what else it has to say there it says afterwards."""
    waiting = patience.get()
    if waiting is None:
        with closing(hub.watch()) as watch:
            yield watch
        return
    watch = waiting.watch
    due, watch.due = watch.due, inf
    try:
        yield watch
    finally:
        watch.due = min(due, watch.due)


def wait_for_answer(sock: socket.socket, buffer: io.BufferedReader) -> None:
    """Raises UpstreamTimeout, and whatever ends the watch; the library closes the connection then."""
    waiting = patience.get()
    if waiting is None:
        return
    watch, until = waiting
    # What the stream has to say meanwhile it says afterwards: awake for it now, it could only wait again at once.
    due, watch.due = watch.due, inf
    seconds = sock.gettimeout()
    try:
        while not _has_come(sock, buffer):
            if monotonic() >= until:
                raise UpstreamTimeout(detail="no answer in time")
            watch.wait(sock, until)
            due, watch.due = min(due, watch.due), inf
    finally:
        watch.due = min(due, watch.due)
        sock.settimeout(seconds)


def _has_come(sock: socket.socket, buffer: io.BufferedReader) -> bool:
    if isinstance(sock, ssl.SSLSocket):
        # Readable is not enough: what has come may be a session ticket, of which the library sees nothing.
        sock.settimeout(0)
        try:
            buffer.peek(1)
        except ssl.SSLWantReadError:
            return False
        return True
    ready = select.poll()  # And not `select`, which knows no descriptor above 1023.
    ready.register(sock, select.POLLIN)
    return bool(ready.poll(0))
