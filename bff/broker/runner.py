"""Runs claimed messages, each in a thread (a greenlet under gevent), and renews their leases."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from time import monotonic
from typing import NamedTuple

from bff.broker.engines import Engines
from bff.broker.queue.base import Claim, LeaseLost, Message, Queue, StopReason
from bff.broker.run import RETRY_SECONDS, Requeued, Run, StopRequested
from bff.errors import StorageUnavailable
from bff.http import tracing, waiting
from bff.ops import metrics

log = logging.getLogger("bff.broker.worker")


class Times(NamedTuple):
    """In seconds."""

    answer_max: float
    """For one reply, from its claim."""
    lease: float
    """How long a claim is valid without being renewed."""


class Runner:
    def __init__(
        self,
        queue: Queue,
        engines: Engines,
        times: Times,
        *,
        before_end: Callable[[Message], None] = lambda _: None,
        keep_stopped: bool = False,
    ) -> None:
        """`before_end` is called with the message of each run before the run ends. `keep_stopped`: see `Run`."""
        self._queue = queue
        self._engines = engines
        self._times = times
        self._before_end = before_end
        self._keep_stopped = keep_stopped
        self._runs: set[Run] = set()
        self._lock = threading.Lock()
        self._renewing = False

    @property
    def idle(self) -> bool:
        return not self._runs

    def start_renewing(self) -> None:
        """Renews leases and listens for stops from now on. Idempotent; called before the first claim."""
        with self._lock:
            if not self._renewing:
                self._renewing = True
                self._queue.on_stop(self._stop)
                threading.Thread(target=self._renew_forever, name="leases", daemon=True).start()

    def start(self, claim: Claim, on_end: Callable[[], object], *, submit_first: bool = False) -> Run:
        """Starts a run; `on_end` is called after it. `submit_first`: see `Run.run`.

        If no thread can be started, releases the claim and raises, without calling `on_end`.
        """
        with ExitStack() as undo:
            undo.callback(self._queue.release, claim)
            if claim.token == 1:
                metrics.QUEUE_WAIT.observe(claim.waited)
            waiter = waiting.new_waiter()
            undo.callback(waiter.close)
            waiter.wake_at = monotonic() + self._times.answer_max
            give_up_at = waiter.wake_at + self._times.lease
            run = Run(self._queue, self._engines, claim, waiter, give_up_at=give_up_at, keep_stopped=self._keep_stopped)
            waiter.confirm = run.confirm
            undo.callback(setattr, waiter, "confirm", None)  # Breaks the reference cycle.
            self._runs.add(run)  # Before its thread starts, so that a drain waits for it.
            undo.callback(self._runs.discard, run)
            waiting.start_task(self._run(run, on_end, submit_first), waiter)
            undo.pop_all()
        return run

    def requeue_all(self) -> None:
        """Cancels all runs; their messages go back into the queue."""
        for run in list(self._runs):
            run.cancel(Requeued())

    def _run(self, run: Run, on_end: Callable[[], object], submit_first: bool) -> Iterator[None]:
        message = run.claim.message
        tracing.extract(message.trace)
        try:
            with suppress(StorageUnavailable):  # The renewing thread tries again.
                self._renew(run)  # The message may have been stopped before its run was registered here.
            yield from run.run(submit_first=submit_first)
        except LeaseLost:
            metrics.LEASES_LOST.inc()
            run.result = "lost"
            log.warning("message %s has another worker now", message.id)
        except Exception:
            log.exception("message %s could not be answered", message.id)
        finally:
            self._before_end(message)
            self._runs.remove(run)
            run.waiter.confirm = None
            run.waiter.close()
            run.submitted.set()
            on_end()
            _record(run)

    def _renew_forever(self) -> None:
        while True:
            interval = self._times.lease / 3
            time.sleep(interval if self._renew_all() else min(RETRY_SECONDS, interval))

    def _renew_all(self) -> bool:
        """False if a lease could not be renewed because the queue is unavailable.

        In a cluster it may be so for some runs only. These are tried last the next time, so that they do not delay the others.
        """
        for run in sorted(self._runs, key=lambda run: run.is_unrenewed):
            was_unrenewed, run.is_unrenewed = run.is_unrenewed, False
            try:
                self._renew(run)
            except StorageUnavailable:
                run.is_unrenewed = True
                if was_unrenewed:
                    break
            except Exception:
                log.exception("a lease could not be renewed")
        return not any(run.is_unrenewed for run in list(self._runs))

    def _renew(self, run: Run) -> None:
        try:
            if reason := self._queue.renew(run.claim):
                run.cancel(StopRequested(reason))
        except LeaseLost:
            run.cancel(LeaseLost())

    def _stop(self, message_id: str, reason: StopReason) -> None:
        for run in list(self._runs):
            if run.claim.message.id == message_id:
                run.cancel(StopRequested(reason))


def kind_of(message: Message) -> str:
    """For the log and the metrics."""
    return "conversation" if "conversation_id" in message.content else "v1" if "messages" in message.content else "chat"


def _record(run: Run) -> None:
    message_id, seconds = run.claim.message.id, monotonic() - run.started_at
    metrics.ANSWER.observe(seconds)
    kind = kind_of(run.claim.message)
    metrics.ANSWERS.labels(run.result, kind).inc()
    fields = {"message_id": message_id, "kind": kind, "result": run.result, "ms": round(seconds * 1000)}
    waited = {"waited_ms": round(run.claim.waited * 1000)}
    log.info("message %s was answered: %s", message_id, run.result, extra=fields | waited)
