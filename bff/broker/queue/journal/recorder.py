"""What the queue does, as the records of its journal: `replay.py` reads them."""

from collections.abc import Callable, Collection
from heapq import nsmallest
from typing import Final

from bff.broker.queue.groups import QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.log import Number
from bff.http.sse import Event

COMPACT_BYTES: Final = 4 * 1024 * 1024
"""A journal of that size may be twice as large as what is in it."""
MOVED_ENTRIES, MOVED_EVENTS = 100, 1000
"""At once. A longer log is not moved: its rows go when it expires."""


class Recorder:
    """Does nothing without a journal."""

    def __init__(self, journal: Journal | None, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._clock = clock

    def introduce(self, entry: QueueEntry) -> None:
        """All of it but its log."""
        if self._journal:
            entry.since = self._journal.buffer.position + 1
            self._journal.buffer.record("new", list(entry.message), entry.left_at, entry.client_key)
            self.note(entry)

    def note(self, entry: QueueEntry) -> None:
        """What may have changed of it."""
        if self._journal:
            about = entry.state, entry.token, entry.stopping, entry.started, entry.committed, entry.restarts
            self._journal.buffer.record(
                "set", entry.message.id, *about, entry.message.cancel_on_disconnect, entry.rank, self._clock()
            )

    def event(self, entry: QueueEntry, event: Event) -> None:
        if self._journal:
            self._journal.buffer.record("event", entry.message.id, event.id, event.event, event.data)

    def gone(self, entry: QueueEntry, last_id: Number) -> None:
        if self._journal:
            self._journal.buffer.record("gone", entry.message.id, *last_id)

    def wish(self, kind: str, entry: QueueEntry) -> None:
        """What the process that answers it shall do: "stopped", "unread" or "keep"."""
        if self._journal:
            self._journal.buffer.record(kind, entry.message.id)

    def remember(self, kind: str, *about: object) -> None:
        """For a day: "client", "free" or "expired"."""
        if self._journal:
            self._journal.buffer.remember(kind, *about)

    def rewrite(self, entry: QueueEntry) -> None:
        self.introduce(entry)
        for event in entry.log.events:
            self.event(entry, event)

    def compact(self, entries: Collection[QueueEntry], held: int) -> None:
        """Lets go of the rows before the oldest message's; where that is too few, the oldest messages are written anew.

        `held`: bytes of what is in the entries, about.
        """
        journal = self._journal
        if journal is None or journal.role != "owner":
            return
        if journal.rows.size > COMPACT_BYTES + 2 * held:
            for entry in nsmallest(MOVED_ENTRIES, entries, key=lambda entry: entry.since):
                if len(entry.log.events) > MOVED_EVENTS:
                    break
                self.rewrite(entry)
        journal.rows.trim(min((entry.since for entry in entries), default=journal.buffer.position + 1))
