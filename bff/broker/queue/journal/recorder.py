"""Records the changes of the queue in its journal; `replay.py` reads the records."""

from collections.abc import Callable, Collection
from heapq import nsmallest
from typing import Final

from bff.broker.queue.groups import QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.log import EventId
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

    def rewrite(self, entry: QueueEntry) -> None:
        self.add(entry)
        for event in entry.log.events:
            self.event(entry, event)

    def compact(self, entries: Collection[QueueEntry], size: int) -> None:
        """Deletes the rows before the oldest entry's; if the journal is too large, first rewrites the oldest entries.

        `size`: approximate bytes of the entries.
        """
        journal = self._journal
        if journal is None or journal.role != "owner":
            return
        if journal.rows.size > COMPACT_BYTES + 2 * size:
            for entry in nsmallest(MAX_MOVED_ENTRIES, entries, key=lambda entry: entry.first_record):
                if len(entry.log.events) > MAX_MOVED_EVENTS:
                    break
                self.rewrite(entry)
        journal.rows.trim(min((entry.first_record for entry in entries), default=journal.buffer.position + 1))
