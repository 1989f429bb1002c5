"""One answer on its way from the engine into its log: what it writes, how it ends, and how long it insists."""

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

from bff.broker import final_events
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
"""For the end of an external broker's stream whose reply has ended: closing it before might still count as leaving."""
AWAY_SECONDS: Final = 0.25
"""Between two attempts to write while the queue is away."""

log = logging.getLogger(__name__)


class StopRequested(Exception):
    """The answer shall end here: its user wished it, or nobody reads it any more."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Requeued(Exception):
    """This process is about to stop: somebody else shall answer."""


class Run:
    def __init__(
        self, queue: Queue, engines: Engines, claim: Claim, waiter: Waiter, *, give_up_at: float, keep_stopped: bool = False
    ) -> None:
        """`waiter.due` is the moment (monotonic) by which the engine must have answered, `give_up_at` the queue."""
        self._queue = queue
        self._engines = engines
        self._is_ours = engines.are_ours(claim.message)
        self.claim = claim
        self.waiter = waiter
        self._give_up_at = give_up_at
        self._keep_stopped = keep_stopped
        self._unwritten: list[LogEntry] = []
        self._texts: list[str] = []
        self.began = monotonic()
        self.result = InternalError.code
        """How it ended: complete, engine_error, stopped, handed_back, lost, or an error's code."""
        self.started = threading.Event()
        """Set once the message is with whoever answers, or was refused."""
        self.refusal: ChatError | None = None
        self._concluded = False
        self._begins_anew = False

    def run(self, *, start_first: bool = False) -> None:
        """To its end, whatever the engine does. Raises Lost; Away, ServerFull when the queue was so for too long.

        `start_first`: somebody waits for `started`, to whom it is refused that it could not be started.
        """
        try:
            reply = self._engines.reply_to(self.claim)
        except UpstreamUnavailable as problem:
            self._refuse(problem)
            return
        with closing(reply):
            if start_first and not self._start(reply):
                return
            self._run(reply)
        if self._begins_anew:
            self._begins_anew = False
            self.run()

    def cancel(self, reason: Exception) -> None:
        """From anywhere: it shall end for this reason."""
        if not (self._concluded and isinstance(reason, StopRequested)):
            self.waiter.cancel(reason)

    def _start(self, reply: Reply) -> bool:
        try:
            with suppress(
                StopRequested, Requeued, LeaseLost
            ):  # The watch has ended for it: so will the reply, at its first step.
                reply.start(self.waiter)
        except ChatError as problem:
            self._refuse(problem)
        self.started.set()
        return self.refusal is None

    def _refuse(self, problem: ChatError) -> None:
        log.warning("message %s: %s (%s)", self.claim.message.id, problem.code, problem.detail)
        self.result = problem.code
        self.refusal = detached(problem)
        finish = partial(self._queue.finish, self.claim, [final_events.failed(problem)], forget=True)
        try:
            finish()
        except (StorageUnavailable, ServerFull):
            self.started.set()  # Whoever waits is told now.
            self._retry(finish)

    def _run(self, reply: Reply) -> None:
        try:
            self._retry(lambda: self._queue.append(self.claim, [("processing", "")], started=False))
            with closing(self._said(reply)) as said:
                self._take(said, reply)
        except LeaseLost:
            raise
        except Requeued:
            self._write()
            with suppress(LeaseLost):  # It is handed back already, where only the receipt was lost.
                self._retry(lambda: self._queue.release(self.claim))
            self.result = "handed_back"
        except StopRequested as stopped:
            text = "".join(self._texts)
            self._finish(final_events.stopped(text, self._kept(text, stopped.reason)), reply)
            self.result = "stopped"
        except ChatError as problem:
            log.warning("message %s: %s (%s)", self.claim.message.id, problem.code, problem.detail)
            self._finish(final_events.failed(problem), reply)
            self.result = problem.code
        except Exception:
            log.exception("message %s: the answer broke", self.claim.message.id)
            self._finish(final_events.failed(InternalError()), reply)

    def _said(self, reply: Reply) -> Generator[str | None, None, None]:
        """The events, None where they pause. Raises an UpstreamFailure, AnswerTimeout, and what ends the watch."""
        for data in reply.events(self.waiter):
            if data is not None:
                yield data.replace("\n", " ")
            elif monotonic() >= self.waiter.wake_at:
                raise AnswerTimeout
            else:
                yield None

    def confirm(self) -> None:
        """Asked before the answer is stored; ends the watch where it must not be stored any more."""
        try:
            self._write()
            if not self._retry(lambda: self._queue.commit(self.claim)):
                reason = self._retry(lambda: self._queue.renew(self.claim))
                self.waiter.cancel(StopRequested(reason or "stopped"))
        except LeaseLost:
            self.waiter.cancel(LeaseLost())
        except ChatError as problem:
            self.waiter.cancel(type(problem)(detail=problem.detail))

    def _take(self, said: Iterator[str | None], reply: Reply) -> None:
        """To the end of its own that the engine comes to; nothing it says afterwards counts."""
        for data in said:
            if data is None:
                self._write()
                continue
            content = events.parsed_object(data)
            kind = content.get("type")
            if not isinstance(kind, str) or kind == "keepalive":
                continue  # Which says nothing, so nobody needs it in a log.
            if self._is_unstored(content) and self._retry(lambda: self._queue.restart(self.claim)):
                self.claim = self.claim._replace(begun=False)
                self._begins_anew = True
                return
            if kind in {"complete", "error"}:
                self.result = "complete" if kind == "complete" else "engine_error"
                last = data if self._is_ours or kind == "complete" else _without_code(content)
                self._finish(("message", last), reply, END_SECONDS)
                return
            self._unwritten.append(("message", data))
            self._texts.append(events.text_in(content))

    def _is_unstored(self, content: dict[str, Any]) -> bool:
        """Whether the bundled engine has no reply of what a worker before had committed and told some of."""
        return self.claim.begun and self._is_ours and content.get("code") == Interrupted.code

    def _kept(self, text: str, reason: StopReason) -> str | None:
        """As what the bundled engine stores the text of a reply that its user stopped; None where it shall not."""
        content = self.claim.message.content
        if not self._keep_stopped or reason != "stopped" or not text.strip() or "conversation_id" not in content:
            return None
        try:
            return self._engines.bundled.keep_stopped(content, text)
        except ChatError as problem:
            log.warning("message %s: what was said could not be stored: %s", self.claim.message.id, problem.detail)
            return None

    def _write(self) -> None:
        entries, self._unwritten = self._unwritten, []
        if entries:
            self._retry(lambda: self._queue.append(self.claim, entries))

    def _finish(self, last: LogEntry, reply: Reply, seconds: float = inf) -> None:
        """The user's next message waits while the rest of an external broker's reply is read, for `seconds` at most."""
        entries, self._unwritten = [*self._unwritten, last], []
        if reply.open:
            self._retry(lambda: self._queue.conclude(self.claim, entries))
            self._concluded = True
            self._read_out(reply, min(monotonic() + seconds, self.waiter.wake_at))
            entries = []
        self._retry(lambda: self._queue.finish(self.claim, entries))

    def _read_out(self, reply: Reply, deadline: float) -> None:
        ended, self.waiter = self.waiter, waiting.new_waiter()
        ended.close()
        self.waiter.wake_at = deadline
        with suppress(Requeued, LeaseLost):
            reply.read_out(self.waiter)

    def _retry(self, write: Callable[[], T]) -> T:
        """While the queue is away, or full, the answer waits here, and the engine with it. Repeating a write does it once."""
        while True:
            try:
                return write()
            except (StorageUnavailable, ServerFull):
                if monotonic() >= self._give_up_at:
                    raise
                time.sleep(AWAY_SECONDS)


def _without_code(content: dict[str, Any]) -> str:
    """An error of an engine that is not ours: what its codes mean is its own affair."""
    return json.dumps({name: value for name, value in content.items() if name != "code"})
