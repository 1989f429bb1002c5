"""Webhook deliveries of the in-memory queue; with a journal they survive a restart."""

import threading
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, islice
from time import monotonic
from typing import Final

from bff.broker.queue.base import LogEntry, Message
from bff.broker.queue.deliveries import FAILED_SECONDS, MAX_LISTED, Delivery, DeliveryEntry, delivery_id, urls_of
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.recorder import Recorder
from bff.broker.queue.stored_delivery import StoredDelivery
from bff.upstream.message_ids import group_mark_of

LANE_CHARACTERS: Final = 48
"""Of a delivery's id: see `delivery_id`."""
MAX_FAILED: Final = 1000
"""Beyond it the oldest are deleted."""
IDLE_SECONDS: Final = 1.0
UNCOMMITTED_SECONDS: Final = 0.02
"""Until a delivery is looked at again whose storing is not committed yet, or which another process may still send."""


@dataclass(eq=False)
class _Lane:
    waiting: list[StoredDelivery] = field(default_factory=list)
    """In the order in which they are due."""
    held_until: float = 0.0
    claimed: bool = False
    ready_at: float | None = None
    """Its entry in the heap that counts; None for none."""


class DeliveryState:
    """Every method is called with the queue's lock held."""

    def __init__(self, clock: Callable[[], float], recorder: Recorder) -> None:
        self._clock = clock
        self._recorder = recorder
        self.on_due: Callable[[], None] = lambda: None
        self.clear()

    def clear(self) -> None:
        self.stored: dict[str, StoredDelivery] = {}
        self.failed: dict[str, StoredDelivery] = {}
        """In the order in which they failed."""
        self.size = 0
        self._lanes: dict[str, _Lane] = {}
        self._heap: list[tuple[float, int, str]] = []
        """When a lane's next delivery may be claimed, a tie-breaker, and the lane."""
        self._numbers = count()

    def add_for(self, message: Message, last: LogEntry) -> None:
        """Adds the deliveries of a message that ends with the entry `last`."""
        group, now = group_mark_of(message.id, message.user_id), self._clock()
        for url in urls_of(message.webhook):
            name = delivery_id(group, url, message.id)
            if name not in self.stored:
                delivery = Delivery(name, url, message.webhook, message.id, message.user_id, now, last[1])
                self._recorder.delivery(self.add(delivery, now))
        if message.webhook:
            self.on_due()

    def add(self, delivery: Delivery, due: float, *, failed: bool = False, error: str = "") -> StoredDelivery:
        stored = StoredDelivery(delivery, due, next(self._numbers), failed, error)
        self.stored[delivery.id] = stored
        self.size += stored.size
        self._insert(stored)
        return stored

    def _insert(self, stored: StoredDelivery) -> None:
        if stored.failed:
            self.failed[stored.delivery.id] = stored
            return
        name = stored.delivery.id[:LANE_CHARACTERS]
        insort(self._lanes.setdefault(name, _Lane()).waiting, stored)
        self._schedule(name)

    def _schedule(self, name: str) -> None:
        """Puts the lane into the heap for when its next delivery may be claimed."""
        lane = self._lanes[name]
        if not lane.waiting and not lane.claimed:
            del self._lanes[name]
        elif lane.waiting and not lane.claimed:
            lane.ready_at = max(lane.held_until, lane.waiting[0].due)
            heappush(self._heap, (lane.ready_at, next(self._numbers), name))

    def claim_due(self) -> Delivery | float:
        """Returns a claimed delivery, or the seconds until there may be one."""
        skipped: list[str] = []
        try:
            while (name := self._pop_ready()) is not None:
                lane = self._lanes[name]
                if self._may_be_sent(lane.waiting[0]):
                    return self._claim(lane)
                skipped.append(name)
        finally:
            for name in skipped:
                self._schedule(name)
        if skipped:
            return UNCOMMITTED_SECONDS
        return self._heap[0][0] - self._clock() if self._heap else IDLE_SECONDS

    def _pop_ready(self) -> str | None:
        """Removes and returns the lane whose first delivery is due longest; None if none is due."""
        while self._heap:
            moment, _, name = self._heap[0]
            lane = self._lanes.get(name)
            is_current = lane is not None and lane.waiting and not lane.claimed and lane.ready_at == moment
            if is_current and moment > self._clock():
                return None
            heappop(self._heap)
            if is_current:
                return name
        return None

    def _may_be_sent(self, stored: StoredDelivery) -> bool:
        return not stored.foreign and self._recorder.is_committed(stored.first_record)

    def _claim(self, lane: _Lane) -> Delivery:
        stored = lane.waiting.pop(0)
        stored.claimed = lane.claimed = True
        return stored.delivery

    def release(self, delivery_id: str, delay: float) -> None:
        stored = self.stored.get(delivery_id)
        if stored is not None and stored.claimed:
            lane = self._lanes[delivery_id[:LANE_CHARACTERS]]
            lane.held_until = self._clock() + delay
            stored.claimed = lane.claimed = False
            self._insert(stored)

    def remove(self, delivery_id: str) -> None:
        self._recorder.remove_delivery(delivery_id)
        self.apply_removal(delivery_id)

    def apply_removal(self, delivery_id: str) -> None:
        """Removes it without a record in the journal."""
        stored = self.stored.pop(delivery_id, None)
        if stored is None:
            return
        self.size -= stored.size
        self.failed.pop(delivery_id, None)
        self._unlink(stored)

    def _unlink(self, stored: StoredDelivery) -> None:
        """Takes the delivery out of its lane."""
        name = stored.delivery.id[:LANE_CHARACTERS]
        if (lane := self._lanes.get(name)) is None:
            return
        if stored.claimed:
            stored.claimed = lane.claimed = False
        elif stored in lane.waiting:
            lane.waiting.remove(stored)
        self._schedule(name)

    def update(self, delivery_id: str, tries: int, due: float, *, failed: bool = False, error: str = "") -> None:
        if delivery_id in self.stored:
            self._recorder.update_delivery(delivery_id, tries, due, failed, error)
            self.apply_update(delivery_id, tries, due, failed, error)
            while len(self.failed) > MAX_FAILED:
                self.remove(next(iter(self.failed)))
            self.on_due()

    def send_again(self, delivery_id: str) -> None:
        self.update(delivery_id, 0, self._clock())

    def apply_update(self, delivery_id: str, tries: int, due: float, failed: bool, error: str) -> None:
        """Updates it without a record in the journal."""
        stored = self.stored.get(delivery_id)
        if stored is None:
            return
        self._unlink(stored)
        self.failed.pop(delivery_id, None)
        stored.delivery = stored.delivery._replace(tries=tries)
        stored.due, stored.failed, stored.error = due, failed, error
        self._insert(stored)

    def expire(self, now: float) -> None:
        while self.failed and next(iter(self.failed.values())).due < now:
            self.remove(next(iter(self.failed)))

    def take_over(self) -> None:
        for stored in self.stored.values():
            stored.foreign = False


class MemoryDeliveries:
    """Deliveries of a queue in memory, to be called from any thread."""

    def __init__(
        self, state: DeliveryState, lock: threading.Lock, clock: Callable[[], float], journal: Journal | None = None
    ) -> None:
        self._state = state
        self._lock = lock
        self._clock = clock
        self._journal = journal
        self._due = threading.Condition(lock)
        state.on_due = self._due.notify

    def claim(self, timeout: float) -> Delivery | None:
        deadline = monotonic() + timeout
        with self._lock:
            while True:
                result = self._state.claim_due()
                if isinstance(result, Delivery):
                    return result
                if monotonic() >= deadline:
                    return None
                self._due.wait(min(result, deadline - monotonic()))

    def release(self, delivery: Delivery, delay: float) -> None:
        with self._lock:
            self._state.release(delivery.id, delay)

    def complete(self, delivery: Delivery) -> None:
        with self._lock:
            self._state.remove(delivery.id)

    def retry(self, delivery: Delivery, delay: float, error: str) -> None:
        self._update(delivery, delay, error, failed=False)

    def fail(self, delivery: Delivery, error: str) -> None:
        self._update(delivery, FAILED_SECONDS, error, failed=True)

    def _update(self, delivery: Delivery, delay: float, error: str, *, failed: bool) -> None:
        with self._lock:
            self._state.update(delivery.id, delivery.tries + 1, self._clock() + delay, failed=failed, error=error)

    def entries(self) -> Sequence[DeliveryEntry]:
        self._peek()
        with self._lock:
            return [stored.entry() for stored in islice(self._state.stored.values(), MAX_LISTED)]

    def count(self) -> int:
        return len(self._state.stored)

    def send_again(self, delivery_id: str) -> bool:
        is_owned_elsewhere = self._peek()
        with self._lock:
            if delivery_id not in self._state.stored:
                return False
            if not is_owned_elsewhere:
                self._state.send_again(delivery_id)
        if self._journal and is_owned_elsewhere:
            self._journal.request_delivery(delivery_id)
        return True

    def _peek(self) -> bool:
        """Reads the journal if this process has not opened it: then another one owns it, or none. Returns whether it is so."""
        if self._journal is None or self._journal.opened:
            return False
        self._journal.peek()
        return True
