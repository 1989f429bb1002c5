"""A run: one claimed message's reply, from the engine into the message's log."""

import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from bff.broker import final_events, stored_ends
from bff.broker.engines import Engines, Reply
from bff.broker.queue.base import Claim, LeaseLost, LogEntry, Queue, StopReason
from bff.errors import (
    AnswerTimeout,
    ChatError,
    InternalError,
    Interrupted,
    ServerFull,
    StorageUnavailable,
    UpstreamUnavailable,
    detached,
)
from bff.http import waiting
from bff.http.waiting import Waiter
from bff.upstream import events

T = TypeVar("T")

END_SECONDS: Final = 5.0
"""How long an external broker's stream is read after its terminal event: the broker may count an earlier close as a
disconnect."""
RETRY_SECONDS: Final = 0.25
"""Between two attempts to write while the queue is unavailable."""

log = logging.getLogger(__name__)


class StopRequested(Exception):
    """The reply ends here: its user stopped it, or nobody reads it any more."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Requeued(Exception):
    """The process shuts down; another worker is to claim the message."""


class Run:
    def __init__(
        self, queue: Queue, engines: Engines, claim: Claim, waiter: Waiter, *, give_up_at: float, keep_stopped: bool = False
    ) -> None:
        """`waiter.wake_at` is the deadline (monotonic) for the engine's reply, `give_up_at` the one for writes to the queue.

        `keep_stopped`: the output of a stopped reply in a conversation is stored.
        """
        self._queue = queue
        self._engines = engines
        self._is_bundled = engines.is_bundled(claim.message)
        self.claim = claim
        self.waiter = waiter
        self._give_up_at = give_up_at
        self._keep_stopped = keep_stopped
        self._unwritten: list[LogEntry] = []
        self._texts: list[str] = []
        self.started_at = monotonic()
        self.result = InternalError.code
        """How it ended: complete, engine_error, stopped, handed_back, lost, or an error's code."""
        self.submitted = threading.Event()
        """Set once the upstream has accepted the message, or `refusal` is set."""
        self.refusal: ChatError | None = None
        self.is_unrenewed = False
        """Whether the queue was unavailable when the lease was to be renewed last."""
        self._concluded = False
        self._committed = claim.was_started
        self._restart = False

    def run(self, *, submit_first: bool = False) -> Iterator[None]:
        """Runs to the end; yields whenever the waiter woke up.

        Raises LeaseLost; StorageUnavailable or ServerFull if the queue was so until `give_up_at`.

        `submit_first`: a caller waits for `submitted`. The message is submitted before anything is written; if that fails,
        it is refused.
        """
        try:
            reply = self._engines.reply_to(self.claim)
        except UpstreamUnavailable as problem:
            self._refuse(problem)
            return
        with closing(reply):
            if submit_first and not self._submit(reply):
                return
            yield from self._run(reply)
        if self._restart:
            self._restart = False
            yield from self.run()

    def cancel(self, reason: Exception) -> None:
        """Ends the run with `reason`; may be called from anywhere."""
        if not (self._concluded and isinstance(reason, StopRequested)):
            self.waiter.cancel(reason)

    def confirm(self) -> None:
        """Called before the reply is stored. Cancels the waiter if it must not be stored any more."""
        try:
            self._write()
            self._committed = self._retry_write(lambda: self._queue.commit(self.claim))
            if not self._committed:
                reason = self._retry_write(lambda: self._queue.renew(self.claim))
                self.waiter.cancel(StopRequested(reason or "stopped"))
        except LeaseLost:
            self.waiter.cancel(LeaseLost())
        except ChatError as problem:
            self.waiter.cancel(type(problem)(detail=problem.detail))

    def _submit(self, reply: Reply) -> bool:
        try:
            # These have cancelled the waiter: the reply ends at its first wait.
            with suppress(StopRequested, Requeued, LeaseLost):
                reply.start(self.waiter)
        except ChatError as problem:
            self._refuse(problem)
        self.submitted.set()
        return self.refusal is None

    def _refuse(self, problem: ChatError) -> None:
        self._log_problem(problem)
        self.result = problem.code
        self.refusal = detached(problem)
        finish = partial(self._queue.finish, self.claim, [final_events.failed(problem)], forget=True)
        try:
            finish()
        except (StorageUnavailable, ServerFull):
            self.submitted.set()  # The caller need not wait for the retries.
            self._retry_write(finish)

    def _run(self, reply: Reply) -> Iterator[None]:
        try:
            self._retry_write(lambda: self._queue.append(self.claim, [("processing", "")], started=False))
            with closing(self._events(reply)) as data:
                yield from self._write_events(data, reply)
        except LeaseLost:
            raise
        except Requeued:
            self._write()
            with suppress(LeaseLost):  # A release whose response was lost has succeeded.
                self._retry_write(lambda: self._queue.release(self.claim))
            self.result = "handed_back"
        except StopRequested as stop:
            text = "".join(self._texts)
            self._finish(final_events.stopped(text, self._store_stopped(text, stop.reason)), reply)
            self.result = "stopped"
        except ChatError as problem:
            self._log_problem(problem)
            self._finish(final_events.failed(problem), reply)
            self.result = problem.code
        except Exception:
            log.exception("message %s: the run failed", self.claim.message.id)
            self._finish(final_events.failed(InternalError()), reply)

    def _log_problem(self, problem: ChatError) -> None:
        log.warning("message %s: %s (%s)", self.claim.message.id, problem.code, problem.detail)

    def _events(self, reply: Reply) -> Generator[str | None, None, None]:
        """The events' data, None while there is none. Raises an UpstreamFailure, AnswerTimeout, and what cancels the waiter."""
        for data in reply.events(self.waiter):
            if data is not None:
                yield data.replace("\n", " ")
            elif monotonic() >= self.waiter.wake_at:
                raise AnswerTimeout
            else:
                yield None

    def _write_events(self, stream: Iterator[str | None], reply: Reply) -> Iterator[None]:
        """Writes the engine's events up to its first terminal event; later ones are ignored."""
        for data in stream:
            if data is None:
                self._write()
                yield
                continue
            content = events.parse_object(data)
            kind = content.get("type")
            if not isinstance(kind, str) or kind == "keepalive":
                continue
            if self._is_unstored(content) and self._retry_write(lambda: self._queue.restart(self.claim)):
                self.claim = self.claim._replace(was_started=False)
                self._committed = False
                self._texts.clear()
                self._restart = True
                return
            if kind in {"complete", "error"}:
                self.result = "complete" if kind == "complete" else "engine_error"
                last = data if self._is_bundled or kind == "complete" else _without_code(content)
                self._finish(("message", last), reply, END_SECONDS)
                return
            self._unwritten.append(("message", data))
            self._texts.append(events.text_in(content))

    def _is_unstored(self, content: dict[str, Any]) -> bool:
        """Whether the bundled engine reports that the committed reply is not the stored one: see `Turns`."""
        return self._committed and self._is_bundled and content.get("code") == Interrupted.code

    def _store_stopped(self, text: str, reason: StopReason) -> str | None:
        """Stores the output of a reply that its user stopped. Its id; None if it is not to be stored, or could not be."""
        content = self.claim.message.content
        if not self._keep_stopped or reason != "stopped" or not text.strip() or "conversation_id" not in content:
            return None
        try:
            return self._engines.bundled.keep_stopped(content, text)
        except ChatError as problem:
            log.warning("message %s: the stopped reply could not be stored: %s", self.claim.message.id, problem.detail)
            return None

    def _write(self) -> None:
        entries, self._unwritten = self._unwritten, []
        if entries:
            self._retry_write(lambda: self._queue.append(self.claim, entries))

    def _finish(self, last: LogEntry, reply: Reply, seconds: float = inf) -> None:
        """The user's next message waits while the rest of an external broker's reply is read, `seconds` at most."""
        entries, self._unwritten = [*self._unwritten, last], []
        stored_ends.record(self._engines.bundled, self.claim.message, last)
        if reply.open:
            self._retry_write(lambda: self._queue.conclude(self.claim, entries))
            self._concluded = True
            self._read_rest(reply, min(monotonic() + seconds, self.waiter.wake_at))
            entries = []
        self._retry_write(lambda: self._queue.finish(self.claim, entries))

    def _read_rest(self, reply: Reply, deadline: float) -> None:
        old_waiter, self.waiter = self.waiter, waiting.new_waiter()
        old_waiter.close()
        self.waiter.wake_at = deadline
        with suppress(Requeued, LeaseLost):
            reply.discard_rest(self.waiter)

    def _retry_write(self, write: Callable[[], T]) -> T:
        """Repeats an idempotent write while the queue is unavailable or full; the run and its engine wait meanwhile."""
        while True:
            try:
                return write()
            except (StorageUnavailable, ServerFull):
                if monotonic() >= self._give_up_at:
                    raise
                time.sleep(RETRY_SECONDS)


def _without_code(content: dict[str, Any]) -> str:
    """The error codes of an engine that is not ours have no meaning for our clients."""
    return json.dumps({name: value for name, value in content.items() if name != "code"})
