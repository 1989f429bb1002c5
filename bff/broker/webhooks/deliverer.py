"""Claims due webhook deliveries and sends each in a thread (a greenlet under gevent)."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Final

from bff.broker.queue.deliveries import Deliveries, Delivery
from bff.broker.webhooks.receivers import Receivers
from bff.broker.webhooks.sending import Outcome, Sender
from bff.errors import ServerFull, StorageUnavailable
from bff.ops import metrics
from bff.upstream.http import origin_of

MAX_SENDING: Final = 32
"""Requests that a process sends at once; at most 8 of them to one receiver."""
CLAIM_SECONDS: Final = 1.0
"""Timeout of waiting for a free slot, and then for a delivery."""
PAUSE_SECONDS: Final = 1.0
"""After an error, and between two attempts to store a try's outcome."""
STORE_ATTEMPTS: Final = 5
"""Of storing a try's outcome: after that the lease ends, and the delivery is sent once more."""

log = logging.getLogger(__name__)


class Deliverer:
    def __init__(self, deliveries: Deliveries, sender: Sender, retry_seconds: Sequence[float]) -> None:
        """`retry_seconds`: between each try and the next; there is one try more than that."""
        self._deliveries = deliveries
        self._sender = sender
        self._retry_seconds = retry_seconds
        self._receivers = Receivers()
        self._free = threading.BoundedSemaphore(MAX_SENDING)
        self._sending: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._draining = False

    @property
    def idle(self) -> bool:
        return not self._sending

    def start(self) -> None:
        """Idempotent."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._claim_forever, name="webhooks", daemon=True)
                self._thread.start()

    def drain(self, seconds: float) -> None:
        """Claims nothing more. Requests that are not finished after `seconds` are repeated by another process."""
        deadline = monotonic() + seconds
        self._draining = True
        if self._thread is not None:
            self._thread.join(seconds)
        while not self.idle and monotonic() < deadline:
            time.sleep(0.05)

    def _claim_forever(self) -> None:
        unavailable = False
        while not self._draining:
            try:
                self._claim_one()
                unavailable = False
            except (StorageUnavailable, ServerFull) as problem:
                if not unavailable:
                    log.warning("webhooks wait, the queue is unavailable: %s", problem.detail)
                unavailable = True
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("the webhooks' thread failed")
                time.sleep(PAUSE_SECONDS)

    def _claim_one(self) -> None:
        if not self._free.acquire(timeout=CLAIM_SECONDS):
            return
        with ExitStack() as undo:
            undo.callback(self._free.release)
            delivery = self._deliveries.claim(CLAIM_SECONDS)
            if delivery is None:
                return
            origin = origin_of(delivery.url)
            delay = self._receivers.acquire(origin)
            undo.callback(self._deliveries.release, delivery, delay or PAUSE_SECONDS)
            if delay:
                return
            undo.callback(self._receivers.release, origin, 0.0, failed=True)
            self._sending.add(delivery.id)
            undo.callback(self._sending.discard, delivery.id)
            threading.Thread(target=self._send, args=(delivery, origin), name="webhook", daemon=True).start()
            undo.pop_all()

    def _send(self, delivery: Delivery, origin: str) -> None:
        started_at, outcome = monotonic(), Outcome(False, "internal_error")
        try:
            outcome = self._sender.send(delivery)
        except Exception:
            log.exception("webhook %s could not be sent", delivery.id)
        seconds = monotonic() - started_at
        self._receivers.release(origin, seconds, failed=not outcome.ended)
        try:
            self._store(delivery, outcome)
        finally:
            self._sending.discard(delivery.id)
            self._free.release()
        self._report(delivery, origin, outcome, seconds)

    def _store(self, delivery: Delivery, outcome: Outcome) -> None:
        for _ in range(STORE_ATTEMPTS):
            try:
                self._settle(delivery, outcome)
            except (StorageUnavailable, ServerFull):
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("webhook %s: the outcome could not be stored", delivery.id)
                return
            else:
                return

    def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        if outcome.ended:
            self._deliveries.complete(delivery)
        elif self._is_last(delivery):
            self._deliveries.fail(delivery, outcome.result)
        else:
            self._deliveries.retry(delivery, self._retry_seconds[delivery.tries], outcome.result)

    def _is_last(self, delivery: Delivery) -> bool:
        return delivery.tries >= len(self._retry_seconds)

    def _report(self, delivery: Delivery, origin: str, outcome: Outcome, seconds: float) -> None:
        """The log has the receiver's origin only: the rest of the URL may hold a secret."""
        result, level, end = outcome.result, logging.INFO, ""
        if not outcome.ended and self._is_last(delivery):
            result, level, end = "failed", logging.ERROR, ", given up"
        elif not outcome.ended:
            result, level, end = "retried", logging.WARNING, ", to be tried again"
        metrics.WEBHOOKS.labels(result).inc()
        metrics.WEBHOOK.observe(seconds)
        fields = {"message_id": delivery.message_id, "webhook": delivery.id, "receiver": origin, "result": result}
        extra = fields | {"tries": delivery.tries + 1, "ms": round(seconds * 1000)}
        log.log(level, "webhook of message %s to %s: %s%s", delivery.message_id, origin, outcome.result, end, extra=extra)
