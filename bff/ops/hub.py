"""Waiting, on gevent's loop or on plain threads: this is the one module that knows which of them runs.

A stream spends its life waiting for several things at once: its upstream's socket, its browser's socket, a word from
elsewhere in the process, a moment in time. A `Watch` is that one waiting place. Under gevent it is a watcher a socket and
no greenlet beyond the stream's own; under threads it is a `poll`.
"""

import contextlib
import select
import socket
import ssl
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from bff.errors import ReaderLeft

RESET_SECONDS: Final = 0.05
"""How soon a peer that closed, and did not just half-close, answers a write with a reset."""

PLACE: Final = "bff.place"
"""In a WSGI environ: where the answer to a caller in this process waits."""
T = TypeVar("T")


class Timer(Protocol):
    def cancel(self) -> None: ...


def browser(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket a WSGI request came over, where the server shows it: gunicorn, or Flask's own."""
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return sock if isinstance(sock, socket.socket) else None


def place(environ: Mapping[str, Any]) -> "socket.socket | Watch | None":
    """What `watch` makes a waiting place of: the browser's socket, or the place of a caller in this process."""
    caller: Watch | None = environ.get(PLACE)
    return caller or browser(environ)


def later(seconds: float, do: Callable[[], None]) -> Timer:
    """Calls `do`, which must not block, unless cancelled before."""
    timer = (_LoopTimer if _patched() else _ThreadTimer)(seconds, do)
    timer.start()
    return timer


class Aside:
    """Calls that block, where they stop nobody: under gevent in one real thread, one after the other; under threads here."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, do: Callable[[], T]) -> T:
        if not _patched():
            return do()
        if self._pool is None:
            from gevent.threadpool import ThreadPool

            self._pool = ThreadPool(1)
        give: Callable[[], T] = self._pool.apply(partial(_tried, do))
        try:
            return give()
        finally:
            del give  # Which would hold an error that holds this frame.


def _tried(do: Callable[[], T]) -> Callable[[], T]:
    """What gives its result or raises its error: gevent would print an error that is raised in its thread."""
    try:
        result = do()
    except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is.
        return partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> Any:
    raise error


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def watch(browser: "socket.socket | Watch | None" = None, *, half_open: bool = True) -> "Watch":
    """A waiting place for a stream to `browser`; it lives in the greenlet or thread that calls `wait`.

    A browser that closed may have closed its sending half only, which a write finds out. Where nothing can be written
    meanwhile (not `half_open`) it counts as gone. The place of a caller in this process is the caller's affair.
    """
    if isinstance(browser, Watch):
        return browser
    if isinstance(browser, ssl.SSLSocket):
        browser = None  # TLS has no peeking: writes find out.
    made = (_LoopWatch if _patched() else _PollWatch)(browser)
    made.half_open = half_open
    return made


class Watch(ABC):
    """`end` and `wake` may be called from anywhere, everything else by the stream itself."""

    nested = False
    """Whether it is inside its reader's own, who wants to be asked before each wait."""

    def __init__(self, browser: socket.socket | None) -> None:
        self._browser = browser
        self._woken = False
        self.due = inf
        """The moment (monotonic) at which the stream has something to say of its own: it wants to be awake then."""
        self.half_open = True
        self.ending: Exception | None = None
        """Why the stream has to end, if it has to: raised by the next `wait`."""
        self._in_doubt_until = -inf

    def wait(self, upstream: HasDescriptor | None = None, until: float = inf) -> None:
        """Returns when `upstream` is readable, at `until` or `due`, after `wake`, or for no reason.

        Raises ReaderLeft when the browser is gone, and whatever `end` was given.
        """
        if not self._woken and self.ending is None:
            self._sleep(upstream, min(until, self.due))
        self._woken = False
        if self.ending is not None:
            raise self.ending

    def pause(self, seconds: float) -> Iterator[None]:
        """Whatever else is to be said meanwhile is said at each None. Raises what `wait` raises."""
        end = monotonic() + seconds
        while monotonic() < end:
            yield None
            self.wait(until=end)

    def make_sure(self) -> Iterator[None]:
        """Until it is known whether the browser is still there, as far as its socket can tell: mostly at once.

        Raises what `wait` raises. To be iterated with a write after each None, which a closed peer answers with a reset.
        """
        for _ in range(3):  # What woke us up already, then this moment, then what came with it.
            self.wait(until=monotonic())
        while monotonic() < self._in_doubt_until:
            yield None
            self.wait(until=self._in_doubt_until)
        if self._in_doubt_until > -inf:
            self._look_for_reset()
        if self.ending is not None:
            raise self.ending

    def end(self, reason: Exception) -> None:
        """Ends the stream with `reason`; the first one counts."""
        if self.ending is None:
            self.ending = reason
            self.wake()

    def cut(self) -> None:
        """Hangs up on the browser."""
        if self._browser is not None:
            with contextlib.suppress(OSError):
                self._browser.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def wake(self) -> None:
        """Ends the wait that is going on, or the next one."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _sleep(self, upstream: HasDescriptor | None, until: float) -> None: ...

    def _browser_spoke(self) -> bool:
        """Looks at what made the browser's socket readable; True if it may be gone, which a write will tell."""
        assert self._browser is not None
        try:
            said = self._browser.recv(1, socket.MSG_PEEK)
        except OSError:
            self.end(ReaderLeft())
            return False
        if said:
            return False  # The next request, ahead of its time. Nothing to learn from this socket any more.
        if not self.half_open:
            self.end(ReaderLeft())
            return False
        # A FIN: closed, or only its sending half. Saying something at once makes a closed peer answer with a reset.
        self.due = 0.0
        self._in_doubt_until = monotonic() + 2 * RESET_SECONDS
        self.wake()
        return True

    def _look_for_reset(self) -> None:
        assert self._browser is not None
        if self._browser.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.end(ReaderLeft())


class _LoopWatch(Watch):
    """Bare watchers on gevent's loop; they call back in the hub, which switches to the stream's greenlet."""

    def __init__(self, browser: socket.socket | None) -> None:
        super().__init__(browser)
        from gevent import get_hub, getcurrent

        self._current: Any = getcurrent
        self._hub: Any = get_hub()
        self._loop: Any = self._hub.loop
        self._sleeper: Any = None
        self._upstream: HasDescriptor | None = None
        self._upstream_io: Any = None
        self._until = inf
        self._timer: Any = self._loop.timer(0)
        self._timer_at = inf
        self._watchers = [self._timer]
        if browser is not None:
            self._browser_io: Any = self._loop.io(browser.fileno(), 1)
            self._browser_io.start(self._on_browser)
            self._watchers.append(self._browser_io)

    def _sleep(self, upstream: HasDescriptor | None, until: float) -> None:
        if upstream is not None and upstream is not self._upstream:
            self._follow(upstream)
        self._until = until
        if until < self._timer_at:
            self._arm(until)
        self._sleeper = self._current()
        if upstream is not None:
            self._upstream_io.start(self._resume)
        try:
            self._hub.switch()
        finally:
            self._sleeper = None
            if upstream is not None:
                self._upstream_io.stop()

    def _follow(self, upstream: HasDescriptor | None) -> None:
        # By identity, and held: after a reconnect another connection may well have the descriptor of the first.
        if self._upstream_io is not None:
            self._upstream_io.close()
        self._upstream_io = None if upstream is None else self._loop.io(upstream.fileno(), 1)
        self._upstream = upstream

    def _arm(self, moment: float) -> None:
        # The timer stays as it is while nothing is due before it: most waits are ended by an event, not by time.
        self._timer.stop()
        self._timer.close()
        self._timer = self._loop.timer(max(0.0, moment - monotonic()))
        self._watchers[0] = self._timer
        self._timer.start(self._on_time, update=True)
        self._timer_at = moment

    def _on_time(self) -> None:
        self._timer_at = inf
        if self._sleeper is None or self._until == inf:
            return
        if monotonic() < self._until:
            self._arm(self._until)
        else:
            self._resume()

    def _on_browser(self) -> None:
        self._browser_io.stop()
        if self._browser_spoke():
            self._arm_reset()

    def _arm_reset(self) -> None:
        self._reset_timer: Any = self._loop.timer(RESET_SECONDS)
        self._watchers.append(self._reset_timer)
        self._reset_timer.start(self._look_for_reset, update=True)

    def wake(self) -> None:
        self._woken = True
        # From a thread of its own or from another greenlet: neither may switch to ours itself, the hub does.
        self._loop.run_callback_threadsafe(self._resume)

    def _resume(self) -> None:
        if self._sleeper is not None:
            self._sleeper.switch()

    def close(self) -> None:
        self._follow(None)
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()


class _PollWatch(Watch):
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


class _ThreadTimer(threading.Timer):
    def __init__(self, seconds: float, do: Callable[[], None]) -> None:
        super().__init__(seconds, do)
        self.daemon = True


class _LoopTimer:
    """A bare timer of the loop: no greenlet for what nearly always is cancelled."""

    def __init__(self, seconds: float, do: Callable[[], None]) -> None:
        from gevent import get_hub

        self._do = do
        self._timer: Any = get_hub().loop.timer(seconds)

    def start(self) -> None:
        self._timer.start(self._do, update=True)

    def cancel(self) -> None:
        self._timer.stop()
        self._timer.close()


def _patched() -> bool:
    """Whether greenlets stand in for threads here."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
