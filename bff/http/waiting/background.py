"""A blocking call in the background of a stream, which goes on with its heartbeats and can be cancelled meanwhile."""

import threading
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Generic, TypeVar

from bff.errors import ClientDisconnected
from bff.http import waiting
from bff.http.waiting import Waiter

T = TypeVar("T")


def in_background(call: Callable[[Waiter], T], waiter: Waiter, discard: Callable[[T], None]) -> Generator[None, None, T]:
    """Returns or raises what `call` does, which runs in a thread; yields None whenever `waiter` woke up meanwhile.

    `call` gets a waiter of its own, which is cancelled when the generator is closed. A result that comes too late is passed to
    `discard`.
    """
    task = _Task(call, waiter, discard)
    # In a copy of the caller's context, so that requests made there belong to the same trace.
    threading.Thread(target=copy_context().run, args=(task.run,), name="background", daemon=True).start()
    try:
        while not task.done:
            yield None
            waiter.wait()
        return task.result()
    finally:
        task.abandon()


class _Task(Generic[T]):
    def __init__(self, call: Callable[[Waiter], T], caller: Waiter, discard: Callable[[T], None]) -> None:
        self._call = call
        self._caller = caller
        self._discard = discard
        self._waiter = waiting.new_waiter()
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        """At most one. It is popped to be raised, as its traceback refers to this task."""
        self._abandoned = False
        self.done = False

    def run(self) -> None:
        try:
            self._results.append(self._call(self._waiter))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller.
            self._errors.append(error)
        finally:
            self._waiter.close()
            with self._lock:
                self.done = True
                abandoned = self._abandoned
            self._caller.wake()
        if abandoned:
            self._clean_up()

    def result(self) -> T:
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def abandon(self) -> None:
        """Idempotent. Does nothing once the result was taken."""
        with self._lock:
            self._abandoned = True
            done = self.done
        if done:
            self._clean_up()
        else:
            self._waiter.cancel(ClientDisconnected())

    def _clean_up(self) -> None:
        self._errors.clear()
        while self._results:
            self._discard(self._results.pop())
