"""Waiting primitives for gevent and for threads; no other module knows which of them runs.

A stream waits for several things at once: its upstream's socket, its client's socket, another part of this process, a
deadline. A `Waiter` waits for all of them. Under gevent it uses one watcher per socket and no further greenlet; under threads
it uses `poll`.
"""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeVar

from bff.http.waiting.base import HasDescriptor, Waiter

__all__ = [
    "WAITER_KEY",
    "HasDescriptor",
    "ThreadExecutor",
    "Timer",
    "Waiter",
    "call_later",
    "client",
    "client_socket",
    "new_waiter",
    "start_task",
]

WAITER_KEY: Final = "bff.waiter"
"""In a WSGI environ: the `Waiter` of a caller in this process."""
T = TypeVar("T")


class Timer(Protocol):
    def cancel(self) -> None: ...


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket of a WSGI request, where the server exposes it: gunicorn and Werkzeug do."""
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return sock if isinstance(sock, socket.socket) else None


def client(environ: Mapping[str, Any]) -> socket.socket | Waiter | None:
    """What `new_waiter` takes: the client's socket, or the waiter of a caller in this process."""
    caller: Waiter | None = environ.get(WAITER_KEY)
    return caller or client_socket(environ)


def new_waiter(client: socket.socket | Waiter | None = None, *, allow_half_open: bool = True) -> Waiter:
    """A waiter for a stream to `client`, to be used by one greenlet or thread. The waiter of a caller is returned as it is.

    A client that sent a FIN may have closed its sending side only; the next write shows whether it is gone. Where nothing can
    be written meanwhile, pass `allow_half_open=False`: then it counts as disconnected.
    """
    if isinstance(client, Waiter):
        return client
    if isinstance(client, ssl.SSLSocket):
        client = None  # TLS has no MSG_PEEK; the next write shows whether the client is gone.
    waiter = _create_waiter(client)
    waiter.allow_half_open = allow_half_open
    return waiter


def _create_waiter(client: socket.socket | None) -> Waiter:
    if _patched():
        from bff.http.waiting.greenlets import GreenletWaiter

        return GreenletWaiter(client)
    from bff.http.waiting.threads import ThreadWaiter

    return ThreadWaiter(client)


def start_task(steps: Iterator[None], waiter: Waiter) -> None:
    """Iterates `steps` to their end in the background, in a context of their own (contextvars).

    They wait with `waiter` and yield whenever it woke up.
    """
    if _patched():
        from bff.http.waiting.greenlets import GreenletTask, GreenletWaiter

        assert isinstance(waiter, GreenletWaiter)
        GreenletTask(steps, waiter)
    else:
        threading.Thread(target=_exhaust, args=(steps,), name="task", daemon=True).start()


def _exhaust(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    """Calls `callback`, which must not block, unless it is cancelled before."""
    if _patched():
        from bff.http.waiting.greenlets import GreenletTimer

        return GreenletTimer(seconds, callback)
    from bff.http.waiting.threads import ThreadTimer

    return ThreadTimer(seconds, callback)


class ThreadExecutor:
    """Runs blocking calls one after the other: under gevent in one native thread, so that the hub goes on; else in place."""

    def __init__(self) -> None:
        self._thread: Callable[[Callable[[], Any]], Any] | None = None

    def __call__(self, call: Callable[[], T]) -> T:
        if not _patched():
            return call()
        if self._thread is None:
            from bff.http.waiting.greenlets import NativeThread

            self._thread = NativeThread()
        result: T = self._thread(call)
        return result


def _patched() -> bool:
    """Whether gevent has replaced threads by greenlets in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
