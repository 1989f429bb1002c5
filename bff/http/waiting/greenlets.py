"""Waiting on gevent's loop. Imported only where gevent has replaced threads by greenlets."""

import socket
from collections.abc import Callable, Iterator
from contextvars import Context
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from gevent import get_hub, getcurrent, spawn
from gevent.threadpool import ThreadPool

from bff.http.waiting.base import RESET_SECONDS, HasDescriptor, Waiter

T = TypeVar("T")

IDLE_SECONDS: Final = 1.0
"""After a wait of this length a task is parked, which takes 0.1 ms of CPU time: too much for each event of a faster stream."""


class GreenletWaiter(Waiter):
    """Bare watchers on gevent's loop. Their callbacks run in the hub, which switches to the stream's greenlet."""

    def __init__(self, client: socket.socket | None) -> None:
        super().__init__(client)
        self._hub: Any = get_hub()
        self._loop: Any = self._hub.loop
        self._waiting: Callable[[], object] | None = None
        """Ends the current wait."""
        self._upstream: HasDescriptor | None = None
        self._upstream_io: Any = None
        self._deadline = inf
        self.idle_seconds = inf
        """Maximum length of a wait, after which its task may be parked."""
        self._idle_wait: tuple[HasDescriptor | None, float] | None = None
        """The arguments of the last wait, if it ended because of `idle_seconds`."""
        self._timer: Any = self._loop.timer(0)
        self._timer_at = inf
        self._watchers = [self._timer]
        if client is not None:
            self._client_io: Any = self._loop.io(client.fileno(), 1)
            self._client_io.start(self._on_client)
            self._watchers.append(self._client_io)

    def _sleep(self, upstream: HasDescriptor | None, deadline: float) -> None:
        idle_at = monotonic() + self.idle_seconds
        self._start(upstream, min(deadline, idle_at), getcurrent().switch)
        try:
            self._hub.switch()
        finally:
            self._stop()
        is_idle = idle_at < deadline and idle_at <= monotonic()
        self._idle_wait = (upstream, deadline) if is_idle else None

    def park(self, resume: Callable[[], object]) -> bool:
        """If the last wait ended because of `idle_seconds`, continues it without a greenlet; the hub calls `resume` at its end.

        Returns whether it did.
        """
        idle_wait, self._idle_wait = self._idle_wait, None
        if idle_wait is None or self._woken:
            return False
        self._start(*idle_wait, resume)
        return True

    def _start(self, upstream: HasDescriptor | None, deadline: float, resume: Callable[[], object]) -> None:
        if upstream is not None and upstream is not self._upstream:
            self._follow(upstream)
        self._deadline = deadline
        if deadline < self._timer_at:
            self._arm(deadline)
        self._waiting = resume
        if upstream is not None:
            self._upstream_io.start(self._resume)

    def _stop(self) -> None:
        self._waiting = None
        if self._upstream_io is not None:
            self._upstream_io.stop()

    def _resume(self) -> None:
        if (resume := self._waiting) is not None:
            self._stop()
            self._woken = True  # If it was parked, its next call of `wait` returns at once.
            resume()

    def _follow(self, upstream: HasDescriptor | None) -> None:
        # Compared by identity: after a reconnect the new connection often has the descriptor of the old one.
        if self._upstream_io is not None:
            self._upstream_io.close()
        self._upstream_io = None if upstream is None else self._loop.io(upstream.fileno(), 1)
        self._upstream = upstream

    def _arm(self, moment: float) -> None:
        # The timer is left as it is while no earlier moment is needed: most waits end with an event, not in time.
        self._timer.stop()
        self._timer.close()
        self._timer = self._loop.timer(max(0.0, moment - monotonic()))
        self._watchers[0] = self._timer
        self._timer.start(self._on_time, update=True)
        self._timer_at = moment

    def _on_time(self) -> None:
        self._timer_at = inf
        if self._waiting is None or self._deadline == inf:
            return
        if monotonic() < self._deadline:
            self._arm(self._deadline)
        else:
            self._resume()

    def _on_client(self) -> None:
        self._client_io.stop()
        if self._client_is_readable():
            self._arm_reset()

    def _arm_reset(self) -> None:
        self._reset_timer: Any = self._loop.timer(RESET_SECONDS)
        self._watchers.append(self._reset_timer)
        self._reset_timer.start(self._check_for_reset, update=True)

    def wake(self) -> None:
        self._woken = True
        # The caller may be another greenlet or a native thread. Neither may switch to ours: the hub does.
        self._loop.run_callback_threadsafe(self._resume)

    def close(self) -> None:
        self._follow(None)
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()


class GreenletTimer:
    """A bare timer of the loop, started at once. It needs no greenlet, as nearly all timers are cancelled."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer: Any = get_hub().loop.timer(seconds)
        self._timer.start(callback, update=True)

    def cancel(self) -> None:
        self._timer.stop()
        self._timer.close()


class GreenletTask:
    """Iterates `steps` in a greenlet, but has none while their waiter is idle: a greenlet and its stacks take 14 KiB."""

    def __init__(self, steps: Iterator[None], waiter: GreenletWaiter) -> None:
        self._steps = steps
        self._waiter = waiter
        self._context = Context()
        waiter.idle_seconds = IDLE_SECONDS
        self._spawn()

    def _spawn(self) -> None:
        spawn(self._context.run, self._run)

    def _run(self) -> None:
        for _ in self._steps:
            if self._waiter.park(self._spawn):
                return


class NativeThread:
    """A native thread next to gevent's greenlets. It makes its calls one after the other."""

    def __init__(self) -> None:
        self._pool: Any = ThreadPool(1)

    def __call__(self, call: Callable[[], T]) -> T:
        results: list[T] = []
        errors: list[BaseException] = []
        self._pool.apply(_run, (call, results, errors))
        if errors:
            raise errors.pop()  # Popped, as its traceback refers to this frame.
        return results.pop()


def _run(call: Callable[[], T], results: list[T], errors: list[BaseException]) -> None:
    """Catches errors, as gevent prints those that are raised in its threads."""
    try:
        results.append(call())
    except BaseException as error:  # noqa: BLE001 - it is raised again in the caller.
        errors.append(error)
