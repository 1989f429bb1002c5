"""Answers queued messages: claims one after the other, keeps the claims while they are answered, hands back in the end."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Final, NamedTuple

from bff import trace
from bff.broker.answering import AWAY_SECONDS, Answering, Engines, HandedBack, Stopped
from bff.broker.queue import Claim, Lost, Message, Queue, StopReason
from bff.errors import Away
from bff.ops import hub, metrics

CLAIM_SECONDS: Final = 1.0
"""For which a free place, and then a message, is waited for, before it is seen whether to go on at all."""
SWEEP_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 1.0
"""After what went wrong."""
HAND_BACK_SECONDS: Final = 2.0
"""Of a drain's time, for handing back what did not finish."""

log = logging.getLogger(__name__)


class Times(NamedTuple):
    """All in seconds."""

    answer_max: float
    """For one answer, from its claim."""
    lease: float
    """For which a claim holds without a sign of life."""


class Worker:
    """At most `max_running` answers at once, each in a thread (a greenlet under gevent) of its own."""

    def __init__(self, queue: Queue, engines: Engines, times: Times, *, max_running: int, keep_stopped: bool = False) -> None:
        """`keep_stopped`: what a reply in a conversation had said when its user stopped it is stored."""
        self._queue = queue
        self._engines = engines
        self._keep_stopped = keep_stopped
        self._times = times
        self._free = threading.BoundedSemaphore(max_running)
        self._running: set[Answering] = set()
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
                    self._sweep_at = monotonic() + SWEEP_SECONDS
                    self._queue.sweep()
                if away:
                    away = False
                    time.sleep(PAUSE_SECONDS)  # It is back; those who write come first, as their leases have run on.
                self._claim_one()
            except Away as problem:
                if not away:
                    log.warning("the queue is away: %s", problem.detail)
                away = True
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("the worker stumbled")
                time.sleep(PAUSE_SECONDS)

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
            give_up_at = watch.due + self._times.lease
            answering = Answering(
                self._queue, self._engines, claim, watch, give_up_at=give_up_at, keep_stopped=self._keep_stopped
            )
            watch.confirm = answering.confirm
            undoing.callback(setattr, watch, "confirm", None)
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

    def _show_life(self, answering: Answering) -> None:
        try:
            if reason := self._queue.renew(answering.claim):
                answering.watch.end(Stopped(reason))
        except Lost:
            answering.watch.end(Lost())

    def _stop(self, message_id: str, reason: StopReason) -> None:
        for answering in list(self._running):
            if answering.claim.message.id == message_id:
                answering.watch.end(Stopped(reason))

    def _answer(self, answering: Answering) -> None:
        message = answering.claim.message
        trace.go_on(message.trace)
        try:
            with suppress(Away):  # The lease's own thread asks again.
                self._show_life(answering)  # It may have been told to stop before it could be heard here.
            answering.run()
        except Lost:
            metrics.LEASES_LOST.inc()
            answering.result = "lost"
            log.warning("message %s has another worker now", message.id)
        except Exception:
            log.exception("message %s could not be answered", message.id)
        finally:
            self._running.remove(answering)
            answering.watch.confirm = None
            answering.watch.close()
            self._free.release()
            _tell_end(answering)


def _tell_end(answering: Answering) -> None:
    message_id, seconds = answering.claim.message.id, monotonic() - answering.began
    metrics.ANSWER.observe(seconds)
    kind = kind_of(answering.claim.message)
    metrics.ANSWERS.labels(answering.result, kind).inc()
    fields = {"message_id": message_id, "kind": kind, "result": answering.result, "ms": round(seconds * 1000)}
    waited = {"waited_ms": round(answering.claim.waited * 1000)}
    log.info("message %s was answered: %s", message_id, answering.result, extra=fields | waited)


def kind_of(message: Message) -> str:
    """For the log and the metrics."""
    return "conversation" if "conversation_id" in message.content else "v1" if "messages" in message.content else "chat"


def _until(condition: Callable[[], bool], moment: float) -> None:
    while not condition() and monotonic() < moment:
        time.sleep(0.05)
