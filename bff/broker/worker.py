"""The worker claims queued messages, as many as the process may run at once, and hands them to its runner."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Final, NamedTuple

from bff.broker import final_events
from bff.broker.engines import Engines
from bff.broker.queue.base import Claim, Message, Queue, Receipt
from bff.broker.runner import Runner, Times
from bff.broker.webhooks.deliverer import Deliverer
from bff.errors import ServerFull, ServerRestarting, StorageUnavailable, detached

CLAIM_SECONDS: Final = 1.0
"""Timeout of waiting for a free slot, and then for a message."""
SWEEP_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 1.0
"""After an error."""
REQUEUE_SECONDS: Final = 2.0
"""The end of a drain, reserved for requeuing what did not finish."""

log = logging.getLogger(__name__)


class Bounds(NamedTuple):
    """Replies that one process runs at once."""

    running: int
    """By engines."""
    external: int
    """By an external broker, which bounds its own engine."""


class Worker:
    def __init__(
        self,
        queue: Queue,
        engines: Engines,
        times: Times,
        bounds: Bounds,
        *,
        claims: bool = True,
        keep_stopped: bool = False,
        deliverer: Deliverer | None = None,
    ) -> None:
        """`claims`: whether it claims from the queue, and does not only run what `start_now` claims and what follows that.

        `keep_stopped`: see `Run`. `deliverer`: None where no webhooks are sent.
        """
        self._queue = queue
        self._deliverer = deliverer
        self._claims = claims
        self._runs_external = engines.external_broker is not None
        self._runner = Runner(queue, engines, times, before_end=self._claim_next, keep_stopped=keep_stopped)
        self._free = threading.BoundedSemaphore(bounds.running)
        self._free_external = threading.BoundedSemaphore(bounds.external)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._draining = False
        self._refuses_external = False
        self._sweep_at = 0.0

    def start(self) -> None:
        """Idempotent. Not part of the construction: a factory must not start threads."""
        if not self._claims:
            return
        self._runner.start_renewing()
        if self._deliverer is not None:
            self._deliverer.start()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._claim_forever, name="worker", daemon=True)
                self._thread.start()

    def start_now(self, enqueue: Callable[[], Receipt]) -> Receipt:
        """Enqueues a message for an external broker. If `enqueue` claims it, returns once the broker has accepted it.

        Raises ServerFull, what `enqueue` raises, and the ChatError for which the message was refused.
        """
        self._runner.start_renewing()
        if not self._free_external.acquire(blocking=False):
            raise ServerFull
        with ExitStack() as undo:
            undo.callback(self._free_external.release)
            receipt = enqueue()
            if receipt.claim is None:
                return receipt
            run = self._runner.start(receipt.claim, self._free_external.release, submit_first=True)
            undo.pop_all()
        run.submitted.wait()
        if run.refusal is not None:
            raise detached(run.refusal)
        return receipt

    def drain(self, seconds: float) -> None:
        """Claims nothing more, lets runs finish while there is time and requeues the rest; returns after that."""
        end = monotonic() + seconds
        self._draining = True
        if self._thread is not None:
            self._thread.join(seconds)
        _wait_for(lambda: self._runner.idle, end - min(REQUEUE_SECONDS, seconds / 2))
        self._runner.requeue_all()
        _wait_for(lambda: self._runner.idle, end)
        if self._deliverer is not None:
            self._deliverer.drain(max(0.0, end - monotonic()))

    def work_off(self, seconds: float) -> None:
        """Runs what is queued, for `seconds` at most: no other process can.

        Messages that wait for an external broker are refused: one that was submitted there and not read to its end would
        delay its user's next message.
        """
        self._refuses_external = True
        deadline = monotonic() + seconds
        _wait_for(lambda: self._runner.idle and not self._queue.waiting(), deadline)
        if self._deliverer is not None:  # Each webhook is tried once.
            _wait_for(lambda: all(entry.tries for entry in self._queue.deliveries.entries()), deadline)

    def _claim_forever(self) -> None:
        unavailable = False
        while not self._draining:
            try:
                if unavailable or monotonic() >= self._sweep_at:
                    self._sweep_at = monotonic() + SWEEP_SECONDS
                    self._queue.sweep()
                if unavailable:
                    unavailable = False
                    time.sleep(PAUSE_SECONDS)  # Runs renew their leases first, which may have expired meanwhile.
                self._claim_one()
            except (StorageUnavailable, ServerFull) as problem:
                if not unavailable:
                    log.warning("the queue is unavailable: %s", problem.detail)
                unavailable = True
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("the worker failed")
                time.sleep(PAUSE_SECONDS)

    def _claim_one(self) -> None:
        if not self._free.acquire(timeout=CLAIM_SECONDS):
            self._claim_external()
            return
        with ExitStack() as undo:
            undo.callback(self._free.release)
            claim = self._queue.claim(CLAIM_SECONDS)
            if claim is None:
                return
            if claim.message.handler == "external":
                self._start_external(claim)
            else:
                self._runner.start(claim, self._free.release)
                undo.pop_all()

    def _claim_external(self) -> None:
        """Claims what waits for the external broker, such as after a restart, while no slot is free: it takes none."""
        while self._runs_external and not self._draining and (claim := self._queue.claim_for("external")) is not None:
            self._start_external(claim)

    def _claim_next(self, message: Message) -> None:
        """Claims the group's next message before the run of `message` ends, so that a drain waits for it too.

        Only one for the external broker: it takes no slot, so it need not wait for one.
        """
        if not self._runs_external or self._draining:
            return
        try:
            if (claim := self._queue.claim_next(message, "external")) is not None:
                self._start_external(claim)
        except (StorageUnavailable, ServerFull):
            log.warning("the queue is unavailable: the next message waits until a worker claims it")
        except Exception:
            log.exception("the next message could not be started")

    def _start_external(self, claim: Claim) -> None:
        if self._refuses_external:
            self._queue.finish(claim, [final_events.failed(ServerRestarting())], forget=True)
        else:
            self._runner.start(claim, lambda: None)  # It takes no slot: it was admitted when it was enqueued.


def _wait_for(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and monotonic() < deadline:
        time.sleep(0.05)
