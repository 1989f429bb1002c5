"""Answers queued messages: claims one after the other, keeps the claims while they are answered, hands back in the end."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Final, NamedTuple

from bff.broker import final_events
from bff.broker.engines import Engines
from bff.broker.queue.base import Claim, LeaseLost, Message, Queue, Receipt, StopReason
from bff.broker.run import AWAY_SECONDS, Requeued, Run, StopRequested
from bff.errors import ServerFull, ServerRestarting, StorageUnavailable, detached
from bff.http import tracing, waiting
from bff.ops import metrics

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


class Bounds(NamedTuple):
    """Answers of one process at once."""

    running: int
    """Of engines."""
    external: int
    """Of an external broker, whose engine is its own affair."""


class Worker:
    """Answers messages, each in a thread (a greenlet under gevent) of its own."""

    def __init__(
        self, queue: Queue, engines: Engines, times: Times, bounds: Bounds, *, claims: bool = True, keep_stopped: bool = False
    ) -> None:
        """`claims`: it answers what waits in the queue, and not only what is given to `start_now` and what follows that.

        `keep_stopped`: what a reply in a conversation had said when its user stopped it is stored.
        """
        self._queue = queue
        self._engines = engines
        self._keep_stopped = keep_stopped
        self._times = times
        self._claims = claims
        self._free = threading.BoundedSemaphore(bounds.running)
        self._free_external = threading.BoundedSemaphore(bounds.external)
        self._running: set[Run] = set()
        self._starting = threading.Lock()
        self._keeping = False
        self._claiming: threading.Thread | None = None
        self._draining = False
        self._leaves_nothing = False
        self._sweep_at = 0.0

    def start(self) -> None:
        """Idempotent. Not done at construction: a factory that is only looked at must not start threads."""
        if not self._claims:
            return
        self._keep_claims()
        with self._starting:
            if self._claiming is None:
                self._claiming = threading.Thread(target=self._work, name="worker", daemon=True)
                self._claiming.start()

    def _keep_claims(self) -> None:
        with self._starting:
            if not self._keeping:
                self._keeping = True
                self._queue.on_stop(self._stop)
                threading.Thread(target=self._renew, name="leases", daemon=True).start()

    def drain(self, seconds: float) -> None:
        """Claims nothing more, lets what runs finish while there is time, hands back the rest; returns after that."""
        end = monotonic() + seconds
        self._draining = True
        if self._claiming is not None:
            self._claiming.join(seconds)
        _until(lambda: not self._running, end - min(HAND_BACK_SECONDS, seconds / 2))
        for run in list(self._running):
            run.cancel(Requeued())
        _until(lambda: not self._running, end)

    def work_off(self, seconds: float) -> None:
        """Answers what runs and what waits, while there is time: nobody else would. What waits for an external broker is
        refused: left there and not read to its end, it would hold up its user's next message.
        """
        self._leaves_nothing = True
        _until(lambda: not self._running and not self._queue.waiting(), monotonic() + seconds)

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
            except StorageUnavailable as problem:
                if not away:
                    log.warning("the queue is away: %s", problem.detail)
                away = True
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("the worker stumbled")
                time.sleep(PAUSE_SECONDS)

    def _claim_one(self) -> None:
        if self._free.acquire(timeout=CLAIM_SECONDS):
            with ExitStack() as undoing:
                undoing.callback(self._free.release)
                claim = self._queue.claim(CLAIM_SECONDS)
                if claim is None:
                    return
                if claim.message.handler == "external":
                    self._begin_external(claim)
                else:
                    self._begin(claim, self._free)
                    undoing.pop_all()

    def start_now(self, enqueue: Callable[[], Receipt]) -> Receipt:
        """Enqueues a message for an external broker; one that is claimed thereby is started before this returns.

        Raises ServerFull, what `enqueue` raises, and the ChatError that kept the message from being started.
        """
        self._keep_claims()
        if not self._free_external.acquire(blocking=False):
            raise ServerFull
        with ExitStack() as undoing:
            undoing.callback(self._free_external.release)
            receipt = enqueue()
            if receipt.claim is None:
                return receipt
            run = self._begin(receipt.claim, self._free_external, start_first=True)
            undoing.pop_all()
        run.started.wait()
        if run.refusal is not None:
            raise detached(run.refusal)
        return receipt

    def _begin_external(self, claim: Claim) -> None:
        if self._leaves_nothing:
            self._queue.finish(claim, [final_events.failed(ServerRestarting())], forget=True)
        else:
            self._begin(claim, None)

    def _begin(self, claim: Claim, place: threading.Semaphore | None, *, start_first: bool = False) -> Run:
        """`place`: released at its end. What had to wait for an external broker has none: it was let in before.

        Raises what keeps a waiting place or a thread from being made; then somebody else may claim it.
        """
        with ExitStack() as undoing:
            undoing.callback(self._queue.release, claim)
            if claim.token == 1:
                metrics.QUEUE_WAIT.observe(claim.waited)
            waiter = waiting.new_waiter()
            undoing.callback(waiter.close)
            waiter.wake_at = monotonic() + self._times.answer_max
            give_up_at = waiter.wake_at + self._times.lease
            run = Run(self._queue, self._engines, claim, waiter, give_up_at=give_up_at, keep_stopped=self._keep_stopped)
            waiter.confirm = run.confirm
            undoing.callback(setattr, waiter, "confirm", None)
            self._running.add(run)  # Before its thread starts: a drain that waits for what runs must not miss it.
            undoing.callback(self._running.discard, run)
            about = (run, place, start_first)
            threading.Thread(target=self._answer, args=about, name="answer", daemon=True).start()
            undoing.pop_all()
        return run

    def _renew(self) -> None:
        while True:
            away = not self._show_lives()
            time.sleep(min(AWAY_SECONDS, self._times.lease / 3) if away else self._times.lease / 3)

    def _show_lives(self) -> bool:
        """Whether the queue was there."""
        for run in list(self._running):
            try:
                self._show_life(run)
            except StorageUnavailable:
                return False
            except Exception:
                log.exception("a lease could not be renewed")
        return True

    def _show_life(self, run: Run) -> None:
        try:
            if reason := self._queue.renew(run.claim):
                run.cancel(StopRequested(reason))
        except LeaseLost:
            run.cancel(LeaseLost())

    def _stop(self, message_id: str, reason: StopReason) -> None:
        for run in list(self._running):
            if run.claim.message.id == message_id:
                run.cancel(StopRequested(reason))

    def _answer(self, run: Run, place: threading.Semaphore | None, start_first: bool) -> None:
        message = run.claim.message
        tracing.go_on(message.trace)
        try:
            with suppress(StorageUnavailable):  # The lease's own thread asks again.
                self._show_life(run)  # It may have been told to stop before it could be heard here.
            run.run(start_first=start_first)
        except LeaseLost:
            metrics.LEASES_LOST.inc()
            run.result = "lost"
            log.warning("message %s has another worker now", message.id)
        except Exception:
            log.exception("message %s could not be answered", message.id)
        finally:
            self._claim_next(message)  # Before this one is over: a drain that waits for what runs must not miss it.
            self._running.remove(run)
            run.waiter.confirm = None
            run.waiter.close()
            run.started.set()
            if place is not None:
                place.release()
            _tell_end(run)

    def _claim_next(self, message: Message) -> None:
        """The next message of the group, if it is an external broker's: it takes no place, so it waits for none."""
        if self._engines.external_broker is None or self._draining:
            return
        try:
            if (claim := self._queue.claim_next(message, "external")) is not None:
                self._begin_external(claim)
        except (StorageUnavailable, ServerFull):
            log.warning("the queue is away: the next message waits until some worker claims it")
        except Exception:
            log.exception("the next message could not be begun")


def _tell_end(run: Run) -> None:
    message_id, seconds = run.claim.message.id, monotonic() - run.began
    metrics.ANSWER.observe(seconds)
    kind = kind_of(run.claim.message)
    metrics.ANSWERS.labels(run.result, kind).inc()
    fields = {"message_id": message_id, "kind": kind, "result": run.result, "ms": round(seconds * 1000)}
    waited = {"waited_ms": round(run.claim.waited * 1000)}
    log.info("message %s was answered: %s", message_id, run.result, extra=fields | waited)


def kind_of(message: Message) -> str:
    """For the log and the metrics."""
    return "conversation" if "conversation_id" in message.content else "v1" if "messages" in message.content else "chat"


def _until(condition: Callable[[], bool], moment: float) -> None:
    while not condition() and monotonic() < moment:
        time.sleep(0.05)
