"""Waiting on gevent's loop: imported only where greenlets stand in for threads."""

import socket
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, TypeVar

from gevent import get_hub, getcurrent
from gevent.threadpool import ThreadPool

from bff.http.waiting.base import RESET_SECONDS, HasDescriptor, Watch

T = TypeVar("T")


class LoopWatch(Watch):
    """Bare watchers on gevent's loop; they call back in the hub, which switches to the stream's greenlet."""

    def __init__(self, browser: socket.socket | None) -> None:
        super().__init__(browser)
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
        self._sleeper = getcurrent()
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


class LoopTimer:
    """A bare timer of the loop, which runs: no greenlet for what nearly always is cancelled."""

    def __init__(self, seconds: float, do: Callable[[], None]) -> None:
        self._timer: Any = get_hub().loop.timer(seconds)
        self._timer.start(do, update=True)

    def cancel(self) -> None:
        self._timer.stop()
        self._timer.close()


class RealThread:
    """One thread, whatever stands in for the others; what it is given it does one after the other."""

    def __init__(self) -> None:
        self._pool: Any = ThreadPool(1)

    def __call__(self, do: Callable[[], T]) -> T:
        results: list[T] = []
        errors: list[BaseException] = []
        self._pool.apply(_try, (do, results, errors))
        if errors:
            raise errors.pop()  # Taken out, as its traceback holds this frame.
        return results.pop()


def _try(do: Callable[[], T], results: list[T], errors: list[BaseException]) -> None:
    """gevent would print an error that is raised in its thread."""
    try:
        results.append(do())
    except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is.
        errors.append(error)
