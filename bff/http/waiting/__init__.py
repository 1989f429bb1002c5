"""Waiting, on gevent's loop or on plain threads: this is the one module that knows which of them runs.

A stream spends its life waiting for several things at once: its upstream's socket, its browser's socket, a word from
elsewhere in the process, a moment in time. A `Watch` is that one waiting place. Under gevent it is a watcher a socket and
no greenlet beyond the stream's own; under threads it is a `poll`.
"""

import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from bff.http.waiting.base import HasDescriptor, Watch

__all__ = ["PLACE", "Aside", "HasDescriptor", "Timer", "Watch", "browser", "later", "place", "watch"]

PLACE: Final = "bff.place"
"""In a WSGI environ: where the answer to a caller in this process waits."""
T = TypeVar("T")


class Timer(Protocol):
    def cancel(self) -> None: ...


def browser(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket a WSGI request came over, where the server shows it: gunicorn, or Flask's own."""
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return sock if isinstance(sock, socket.socket) else None


def place(environ: Mapping[str, Any]) -> socket.socket | Watch | None:
    """What `watch` makes a waiting place of: the browser's socket, or the place of a caller in this process."""
    caller: Watch | None = environ.get(PLACE)
    return caller or browser(environ)


def watch(browser: socket.socket | Watch | None = None, *, half_open: bool = True) -> Watch:
    """A waiting place for a stream to `browser`; it lives in the greenlet or thread that calls `wait`.

    A browser that closed may have closed its sending half only, which a write finds out. Where nothing can be written
    meanwhile (not `half_open`) it counts as gone. The place of a caller in this process is the caller's affair.
    """
    if isinstance(browser, Watch):
        return browser
    if isinstance(browser, ssl.SSLSocket):
        browser = None  # TLS has no peeking: writes find out.
    made = _new_watch(browser)
    made.half_open = half_open
    return made


def _new_watch(browser: socket.socket | None) -> Watch:
    if _patched():
        from bff.http.waiting.greenlets import LoopWatch

        return LoopWatch(browser)
    from bff.http.waiting.threads import PollWatch

    return PollWatch(browser)


def later(seconds: float, do: Callable[[], None]) -> Timer:
    """Calls `do`, which must not block, unless cancelled before."""
    if _patched():
        from bff.http.waiting.greenlets import LoopTimer

        return LoopTimer(seconds, do)
    from bff.http.waiting.threads import ThreadTimer

    return ThreadTimer(seconds, do)


class Aside:
    """Calls that block, where they stop nobody: under gevent in one real thread, one after the other; under threads here."""

    def __init__(self) -> None:
        self._thread: Callable[[Callable[[], Any]], Any] | None = None

    def __call__(self, do: Callable[[], T]) -> T:
        if not _patched():
            return do()
        if self._thread is None:
            from bff.http.waiting.greenlets import RealThread

            self._thread = RealThread()
        done: T = self._thread(do)
        return done


def _patched() -> bool:
    """Whether greenlets stand in for threads here."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
