"""One answer on its way from the engine into its log: what it writes, how it ends, and how long it insists."""

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from bff import events
from bff.broker import ends
from bff.broker.queue import Claim, Lost, Message, Queue, StopReason, Words
from bff.engine_client import EngineClient
from bff.errors import AnswerTimeout, Away, ChatError, InternalError, ServerFull, UpstreamError, UpstreamTimeout
from bff.ops.hub import Watch
from bff.transport import EventSource

T = TypeVar("T")

AWAY_SECONDS: Final = 0.25
"""Between two attempts to write while the queue is away."""

log = logging.getLogger(__name__)


class Engines(NamedTuple):
    """Who may answer, by `Message.handler`."""

    engine: EngineClient
    bundled: EngineClient

    def of(self, message: Message) -> EngineClient:
        return self.bundled if message.handler == "bundled" else self.engine


class Stopped(Exception):
    """The answer shall end here: its user wished it, or nobody reads it any more."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class HandedBack(Exception):
    """This process is about to stop: somebody else shall answer."""


class Answering:
    def __init__(
        self, queue: Queue, engines: Engines, claim: Claim, watch: Watch, *, give_up_at: float, keep_stopped: bool = False
    ) -> None:
        """`watch.due` is the moment (monotonic) by which the engine must have answered, `give_up_at` the queue."""
        self._queue = queue
        self._engine = engines.of(claim.message)
        self._is_ours = self._engine is engines.bundled
        self.claim = claim
        self.watch = watch
        self._give_up_at = give_up_at
        self._keep_stopped = keep_stopped
        self._unwritten: list[Words] = []
        self._texts: list[str] = []
        self.began = monotonic()
        self.result = InternalError.code
        """How it ended: complete, engine_error, stopped, handed_back, lost, or an error's code."""

    def run(self) -> None:
        """To its end, whatever the engine does. Raises Lost; Away, ServerFull when the queue was so for too long."""
        try:
            self._insist(lambda: self._queue.append(self.claim, [("processing", "")], said=False))
            with closing(self._said()) as said:
                if not self._take(said):
                    raise UpstreamError(detail="the engine ended without an end")
        except Lost:
            raise
        except HandedBack:
            self._write()
            with suppress(Lost):  # It is handed back already, where only the receipt was lost.
                self._insist(lambda: self._queue.release(self.claim))
            self.result = "handed_back"
        except Stopped as stopped:
            text = "".join(self._texts)
            self._finish(ends.stopped(text, self._kept(text, stopped.reason)))
            self.result = "stopped"
        except ChatError as problem:
            log.warning("message %s: %s (%s)", self.claim.message.id, problem.code, problem.detail)
            self._finish(ends.failed(problem))
            self.result = problem.code
        except Exception:
            log.exception("message %s: the answer broke", self.claim.message.id)
            self._finish(ends.failed(InternalError()))

    def _said(self) -> Generator[str | None, None, None]:
        """The engine's events, None where it paused. Raises an UpstreamFailure, AnswerTimeout, and what ends the watch."""
        with closing(self._opened()) as source:
            for event in source.events(self.watch):
                if event is not None:
                    yield event.data.replace("\n", " ")
                elif monotonic() >= self.watch.due:
                    raise AnswerTimeout
                else:
                    yield None

    def _opened(self) -> EventSource:
        message = self.claim.message
        content = message.content
        if self._is_ours:
            content = content | {"message_id": message.id, "begun": self.claim.begun}
        try:
            return self._engine.stream(content, self.watch)
        except UpstreamTimeout:
            if monotonic() >= self.watch.due:
                raise AnswerTimeout from None
            raise

    def confirm(self) -> None:
        """Asked before the answer is stored; ends the watch where it must not be stored any more."""
        try:
            self._write()
            if not self._insist(lambda: self._queue.commit(self.claim)):
                reason = self._insist(lambda: self._queue.renew(self.claim))
                self.watch.end(Stopped(reason or "stopped"))
        except Lost:
            self.watch.end(Lost())
        except ChatError as problem:
            self.watch.end(type(problem)(detail=problem.detail))

    def _take(self, said: Iterator[str | None]) -> bool:
        """Whether the engine came to an end of its own; nothing it says afterwards counts."""
        for data in said:
            if data is None:
                self._write()
                continue
            content = events.parsed_object(data)
            kind = content.get("type")
            if not isinstance(kind, str) or kind == "keepalive":
                continue  # Which says nothing, so nobody needs it in a log.
            if kind in {"complete", "error"}:
                self._finish(("message", data if self._is_ours or kind == "complete" else _without_code(content)))
                self.result = "complete" if kind == "complete" else "engine_error"
                return True
            self._unwritten.append(("message", data))
            self._texts.append(events.text_in(content))
        return False

    def _kept(self, text: str, reason: StopReason) -> str | None:
        """As what the bundled engine stores the text of a reply that its user stopped; None where it shall not."""
        content = self.claim.message.content
        if not self._keep_stopped or reason != "stopped" or not text.strip() or "conversation_id" not in content:
            return None
        try:
            return self._engine.keep_stopped(content, text)
        except ChatError as problem:
            log.warning("message %s: what was said could not be stored: %s", self.claim.message.id, problem.detail)
            return None

    def _write(self) -> None:
        words, self._unwritten = self._unwritten, []
        if words:
            self._insist(lambda: self._queue.append(self.claim, words))

    def _finish(self, last: Words) -> None:
        words, self._unwritten = [*self._unwritten, last], []
        self._insist(lambda: self._queue.finish(self.claim, words))

    def _insist(self, write: Callable[[], T]) -> T:
        """While the queue is away, or full, the answer waits here, and the engine with it. Repeating a write does it once."""
        while True:
            try:
                return write()
            except (Away, ServerFull):
                if monotonic() >= self._give_up_at:
                    raise
                time.sleep(AWAY_SECONDS)


def _without_code(content: dict[str, Any]) -> str:
    """An error of an engine that is not ours: what its codes mean is its own affair."""
    return json.dumps({name: value for name, value in content.items() if name != "code"})
