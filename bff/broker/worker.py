"""Answers queued messages: claims one, has the engine answer it, writes what the engine says into the message's log."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from time import monotonic
from typing import Final, NamedTuple

from bff import events, trace
from bff.broker import ends
from bff.broker.queue import Claim, Lost, Queue, Words
from bff.engine_client import EngineClient
from bff.errors import AnswerTimeout, Away, ChatError, InternalError, ServerFull, UpstreamError, UpstreamTimeout
from bff.ops import hub, metrics
from bff.ops.hub import Watch
from bff.transport import EventSource

CLAIM_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 0.25
"""Between two attempts to write while the queue is away."""
HAND_BACK_SECONDS: Final = 2.0
"""Of a drain's time, for handing back what did not finish."""

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The user wished the answer to end here."""


class HandedBack(Exception):
    """This process is about to stop: somebody else shall answer."""


class Times(NamedTuple):
    """All in seconds."""

    answer_max: float
    """For one answer, from its claim."""
    lease: float
    """For which a claim holds without a sign of life."""


class Worker:
    """At most `max_running` answers at once, each in a thread (a greenlet under gevent) of its own."""

    def __init__(self, queue: Queue, engine: EngineClient, times: Times, *, max_running: int) -> None:
        self._queue = queue
        self._engine = engine
        self._times = times
        self._free = threading.BoundedSemaphore(max_running)
        self._running: set[_Answering] = set()
        self._starting = threading.Lock()
        self._claiming: threading.Thread | None = None
        self._draining = False
        self._sweep_at = 0.0

    def start(self) -> None:
        """Idempotent. Not done at construction: a factory that is only looked at must not start threads."""
        with self._starting:
            if self._claiming is None:
                self._queue.on_stop(self._stop)
                self._claiming = threading.Thread(target=self._work, name="worker", daemon=True)
                self._claiming.start()
                threading.Thread(target=self._renew, name="leases", daemon=True).start()

    def drain(self, seconds: float) -> None:
        """Claims nothing more, lets what runs finish while there is time, hands back the rest; returns after that."""
        end = monotonic() + seconds
        self._draining = True
        if self._claiming is not None:
            self._claiming.join(seconds)
        _until(lambda: not self._running, end - min(HAND_BACK_SECONDS, seconds / 2))
        for answering in list(self._running):
            answering.watch.end(HandedBack())
        _until(lambda: not self._running, end)

    def _work(self) -> None:
        away = False
        while not self._draining:
            try:
                if away or monotonic() >= self._sweep_at:
                    self._sweep_at = monotonic() + CLAIM_SECONDS
                    self._queue.sweep()
                if away:
                    away = False
                    time.sleep(CLAIM_SECONDS)  # It is back; those who write come first, as their leases have run on.
                self._claim_one()
            except Away as problem:
                if not away:
                    log.warning("the queue is away: %s", problem.detail)
                away = True
                time.sleep(CLAIM_SECONDS)
            except Exception:
                log.exception("the worker stumbled")
                time.sleep(CLAIM_SECONDS)

    def _claim_one(self) -> None:
        if self._free.acquire(timeout=CLAIM_SECONDS):
            begun = False
            try:
                claim = self._queue.claim(CLAIM_SECONDS)
                if claim is not None:
                    self._begin(claim)
                    begun = True
            finally:
                if not begun:
                    self._free.release()

    def _begin(self, claim: Claim) -> None:
        """Raises what keeps a waiting place or a thread from being made; then somebody else may claim it."""
        with ExitStack() as undoing:
            undoing.callback(self._queue.release, claim)
            if claim.token == 1:
                metrics.QUEUE_WAIT.observe(claim.waited)
            watch = hub.watch()
            undoing.callback(watch.close)
            watch.due = monotonic() + self._times.answer_max
            answering = _Answering(self._queue, claim, watch, give_up_at=watch.due + self._times.lease)
            self._running.add(answering)  # Before its thread starts: a drain that waits for what runs must not miss it.
            undoing.callback(self._running.discard, answering)
            threading.Thread(target=self._answer, args=(answering,), name="answer", daemon=True).start()
            undoing.pop_all()

    def _renew(self) -> None:
        while True:
            away = not self._show_lives()
            time.sleep(min(AWAY_SECONDS, self._times.lease / 3) if away else self._times.lease / 3)

    def _show_lives(self) -> bool:
        """Whether the queue was there."""
        for answering in list(self._running):
            try:
                self._show_life(answering)
            except Away:
                return False
            except Exception:
                log.exception("a lease could not be renewed")
        return True

    def _show_life(self, answering: "_Answering") -> None:
        try:
            if self._queue.renew(answering.claim):
                answering.watch.end(Stopped())
        except Lost:
            answering.watch.end(Lost())

    def _stop(self, message_id: str) -> None:
        for answering in list(self._running):
            if answering.claim.message.id == message_id:
                answering.watch.end(Stopped())

    def _answer(self, answering: "_Answering") -> None:
        claim, watch = answering.claim, answering.watch
        trace.go_on(claim.message.trace)
        try:
            with suppress(Away):  # The lease's own thread asks again.
                self._show_life(answering)  # It may have been told to stop before it could be heard here.
            with closing(self._said(claim, watch)) as said:
                answering.run(said)
        except Lost:
            metrics.LEASES_LOST.inc()
            answering.result = "lost"
            log.warning("message %s has another worker now", claim.message.id)
        except Exception:
            log.exception("message %s could not be answered", claim.message.id)
        finally:
            self._running.remove(answering)
            watch.close()
            self._free.release()
            answering.tell_end()

    def _said(self, claim: Claim, watch: Watch) -> Generator[Words | None, None, None]:
        """The engine's events, None where it paused. Raises Stopped, an UpstreamFailure, AnswerTimeout."""
        with closing(self._opened(claim, watch)) as source:
            for event in source.events(watch):
                if event is not None:
                    yield event.event, event.data.replace("\n", " ")
                elif monotonic() >= watch.due:
                    raise AnswerTimeout
                else:
                    yield None

    def _opened(self, claim: Claim, watch: Watch) -> EventSource:
        try:
            return self._engine.stream(claim.message.content, watch)
        except UpstreamTimeout:
            if monotonic() >= watch.due:
                raise AnswerTimeout from None
            raise


class _Answering:
    """One answer on its way into its log."""

    def __init__(self, queue: Queue, claim: Claim, watch: Watch, *, give_up_at: float) -> None:
        self._queue = queue
        self.claim = claim
        self.watch = watch
        self._give_up_at = give_up_at
        self._unwritten: list[Words] = []
        self._text = ""
        self._began = monotonic()
        self.result = InternalError.code
        """How it ended: complete, engine_error, stopped, handed_back, lost, or an error's code."""

    def tell_end(self) -> None:
        seconds = monotonic() - self._began
        metrics.ANSWER.observe(seconds)
        metrics.ANSWERS.labels(self.result).inc()
        fields = {"message_id": self.claim.message.id, "result": self.result, "ms": round(seconds * 1000)}
        waited = {"waited_ms": round(self.claim.waited * 1000)}
        log.info("message %s was answered: %s", self.claim.message.id, self.result, extra=fields | waited)

    def run(self, said: Iterator[Words | None]) -> None:
        try:
            self._insist(lambda: self._queue.append(self.claim, [("processing", "")], said=False))
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
            self._finish(ends.stopped(self._text))
            self.result = "stopped"
        except ChatError as problem:
            log.warning("message %s: %s (%s)", self.claim.message.id, problem.code, problem.detail)
            self._finish(ends.failed(problem))
            self.result = problem.code
        except Exception:
            log.exception("message %s: the answer broke", self.claim.message.id)
            self._finish(ends.failed(InternalError()))

    def _take(self, said: Iterator[Words | None]) -> bool:
        """Whether the engine came to an end of its own; nothing it says afterwards counts."""
        for words in said:
            if words is None:
                self._write()
                continue
            kind = events.parsed_object(words[1]).get("type")
            if kind in {"complete", "error"}:
                self._finish(("message", words[1]))
                self.result = "complete" if kind == "complete" else "engine_error"
                return True
            if isinstance(kind, str) and kind != "keepalive":  # Which says nothing, so nobody needs it in a log.
                self._unwritten.append(("message", words[1]))
                self._text += events.progress_text(words[1]) if kind == "progress" else ""
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


def _until(condition: Callable[[], bool], moment: float) -> None:
    while not condition() and monotonic() < moment:
        time.sleep(0.05)
