"""A call that blocks, made beside a stream that goes on waiting: with its heartbeats, and to be left at any moment."""

import threading
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Generic, TypeVar

from bff.errors import ReaderLeft
from bff.http import waiting
from bff.http.waiting import Watch

T = TypeVar("T")


def beside(do: Callable[[Watch], T], watch: Watch, discard: Callable[[T], None]) -> Generator[None, None, T]:
    """What `do` gives or raises, made in a thread of its own; None whenever `watch` woke up meanwhile.

    `do` is given a waiting place of its own, which is ended when nobody wants its result any more. What it gives all the
    same is handed to `discard`.
    """
    call = _Call(do, watch, discard)
    # In the caller's context: what is asked there belongs to the same trace.
    threading.Thread(target=copy_context().run, args=(call.run,), name="beside", daemon=True).start()
    try:
        while not call.over:
            yield None
            watch.wait()
        return call.take()
    finally:
        call.leave()


class _Call(Generic[T]):
    def __init__(self, do: Callable[[Watch], T], caller: Watch, discard: Callable[[T], None]) -> None:
        self._do = do
        self._caller = caller
        self._discard = discard
        self._watch = waiting.watch()
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        """At most one, which is taken out to be raised: its traceback holds this call."""
        self._left = False
        self.over = False

    def run(self) -> None:
        try:
            self._results.append(self._do(self._watch))
        except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is.
            self._errors.append(error)
        finally:
            self._watch.close()
            with self._lock:
                self.over = True
                left = self._left
            self._caller.wake()
        if left:
            self._throw_away()

    def take(self) -> T:
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def leave(self) -> None:
        """Idempotent, and nothing at all once the result was taken."""
        with self._lock:
            self._left = True
            over = self.over
        if over:
            self._throw_away()
        else:
            self._watch.end(ReaderLeft())

    def _throw_away(self) -> None:
        self._errors.clear()
        while self._results:
            self._discard(self._results.pop())
