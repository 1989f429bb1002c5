"""One answer on its way from the engine into its log: what it writes, how it ends, and how long it insists."""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from time import monotonic
from typing import Final

from bff import events
from bff.broker import ends
from bff.broker.queue import Claim, Lost, Queue, Words
from bff.engine_client import EngineClient
from bff.errors import AnswerTimeout, Away, ChatError, InternalError, ServerFull, UpstreamError, UpstreamTimeout
from bff.ops.hub import Watch
from bff.transport import EventSource

AWAY_SECONDS: Final = 0.25
"""Between two attempts to write while the queue is away."""

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The user wished the answer to end here."""


class HandedBack(Exception):
    """This process is about to stop: somebody else shall answer."""


class Answering:
    def __init__(self, queue: Queue, engine: EngineClient, claim: Claim, watch: Watch, *, give_up_at: float) -> None:
        """`watch.due` is the moment (monotonic) by which the engine must have answered, `give_up_at` the queue."""
        self._queue = queue
        self._engine = engine
        self.claim = claim
        self.watch = watch
        self._give_up_at = give_up_at
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
        except Stopped:
            self._finish(ends.stopped("".join(self._texts)))
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
        try:
            return self._engine.stream(self.claim.message.content, self.watch)
        except UpstreamTimeout:
            if monotonic() >= self.watch.due:
                raise AnswerTimeout from None
            raise

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
                self._finish(("message", data))
                self.result = "complete" if kind == "complete" else "engine_error"
                return True
            self._unwritten.append(("message", data))
            self._texts.append(events.text_in(content))
        return False

    def _write(self) -> None:
        words, self._unwritten = self._unwritten, []
        if words:
            self._insist(lambda: self._queue.append(self.claim, words))

    def _finish(self, last: Words) -> None:
        words, self._unwritten = [*self._unwritten, last], []
        self._insist(lambda: self._queue.finish(self.claim, words))

    def _insist(self, write: Callable[[], None]) -> None:
        """While the queue is away, or full, the answer waits here, and the engine with it. Repeating a write does it once."""
        while True:
            try:
                return write()
            except (Away, ServerFull):
                if monotonic() >= self._give_up_at:
                    raise
                time.sleep(AWAY_SECONDS)
