"""Records the changes of the queue in its journal; `replay.py` reads the records."""

from collections.abc import Callable, Collection
from heapq import nsmallest
from typing import Final

from bff.broker.queue.groups import QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.log import EventId
from bff.broker.queue.stored_delivery import StoredDelivery
from bff.http.sse import Event

COMPACT_BYTES: Final = 4 * 1024 * 1024
"""The journal is compacted once it exceeds this plus twice the size of the live data."""
MAX_MOVED_ENTRIES, MAX_MOVED_EVENTS = 100, 1000
"""Per compaction. A longer log is not rewritten: its rows are deleted when it expires."""


class Recorder:
    """Does nothing without a journal."""

    def __init__(self, journal: Journal | None, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._clock = clock

    def add(self, entry: QueueEntry) -> None:
        """Records the whole entry except its log."""
        if self._journal:
            entry.first_record = self._journal.buffer.position + 1
            self._journal.buffer.record("new", list(entry.message), entry.enqueued_at, entry.client_key)
            self.update(entry)

    def update(self, entry: QueueEntry) -> None:
        """Records the entry's fields that change."""
        if self._journal:
            fields = entry.state, entry.token, entry.stop_reason, entry.started, entry.committed, entry.restarts
            cancel_on_disconnect = entry.message.cancel_on_disconnect
            self._journal.buffer.record("set", entry.message.id, *fields, cancel_on_disconnect, entry.rank, self._clock())

    def event(self, entry: QueueEntry, event: Event) -> None:
        if self._journal:
            self._journal.buffer.record("event", entry.message.id, event.id, event.event, event.data)

    def remove(self, entry: QueueEntry, last_id: EventId) -> None:
        if self._journal:
            self._journal.buffer.record("gone", entry.message.id, *last_id)

    def request(self, kind: str, entry: QueueEntry) -> None:
        """A request to the process that owns the entry: "stopped", "unread" (stop it) or "keep" (continue without readers)."""
        if self._journal:
            self._journal.buffer.record(kind, entry.message.id)

    def remember(self, kind: str, *fields: object) -> None:
        """Records what a TTLCache holds: "client", "free" or "expired"."""
        if self._journal:
            self._journal.buffer.remember(kind, *fields)

    def delivery(self, stored: StoredDelivery) -> None:
        """Records the whole delivery."""
        if self._journal:
            stored.first_record = self._journal.buffer.position + 1
            *fields, event, tries, _ = stored.delivery
            self._journal.buffer.record("delivery", *fields, tries, stored.due, stored.failed, stored.error, event)

    def update_delivery(self, delivery_id: str, tries: int, due: float, failed: bool, error: str) -> None:
        if self._journal:
            self._journal.buffer.record("delivery_set", delivery_id, tries, due, failed, error)

    def remove_delivery(self, delivery_id: str) -> None:
        if self._journal:
            self._journal.buffer.record("delivery_gone", delivery_id)

    def is_committed(self, position: int) -> bool:
        return self._journal is None or self._journal.buffer.is_committed(position)

    def rewrite(self, entry: QueueEntry) -> None:
        self.add(entry)
        for event in entry.log.events:
            self.event(entry, event)

    def compact(self, entries: Collection[QueueEntry], deliveries: Collection[StoredDelivery], size: int) -> None:
        """Deletes the rows before the oldest entry's or delivery's; if the journal is too large, first rewrites the oldest.

        `size`: approximate bytes of the entries and the deliveries.
        """
        journal = self._journal
        if journal is None or journal.role != "owner":
            return
        recorded: list[QueueEntry | StoredDelivery] = [*entries, *deliveries]
        if journal.rows.size > COMPACT_BYTES + 2 * size:
            for item in nsmallest(MAX_MOVED_ENTRIES, recorded, key=lambda item: item.first_record):
                if isinstance(item, StoredDelivery):
                    self.delivery(item)
                elif len(item.log.events) > MAX_MOVED_EVENTS:
                    break
                else:
                    self.rewrite(item)
        journal.rows.trim(min((item.first_record for item in recorded), default=journal.buffer.position + 1))
