"""Writes events into the logs of the in-memory queue. Every method is called with the queue's lock held."""

import json
from collections.abc import Callable, Sequence

from bff.broker.queue.base import LogEntry
from bff.broker.queue.groups import Group, QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.recorder import Recorder


class LogWriter:
    def __init__(self, clock: Callable[[], float], journal: Journal | None, recorder: Recorder) -> None:
        self._clock = clock
        self._journal = journal
        self._recorder = recorder
        self.clear()

    def clear(self) -> None:
        self.last_id = (0, 0)
        self.withheld: list[QueueEntry] = []
        """Entries with events that may only be read once they are committed."""

    def write(self, entry: QueueEntry, entries: Sequence[LogEntry], *, withhold: bool = False) -> None:
        """`withhold`: the events may only be read once they are committed."""
        first = len(entry.log.events)
        for log_entry in entries:
            self.last_id = max((int(self._clock() * 1000), 0), (self.last_id[0], self.last_id[1] + 1))
            self._recorder.event(entry, entry.log.append(self.last_id, log_entry))
        entry.updated_at = self._clock()
        if self._journal and withhold:
            entry.withheld = self._journal.buffer.position, min(first, entry.withheld[1] if entry.withheld else first)
            self.withheld.append(entry)
            self._journal.buffer.commit_soon()
        elif not entry.withheld:
            entry.wake_readers()

    def write_positions(self, group: Group) -> None:
        """Appends a `queued` event to each waiting message whose position has changed."""
        for position, entry in enumerate(group.waiting, start=1):
            event = ("queued", json.dumps({"message_id": entry.message.id, "position": position}))
            if not entry.foreign and (not entry.log.events or entry.log.events[-1][:2] != event):
                self.write(entry, [event])

    def visible_events(self, entry: QueueEntry) -> int | None:
        """Returns how many of the entry's events may be read; None for all."""
        if entry.withheld is None or self._journal is None or self._journal.buffer.is_committed(entry.withheld[0]):
            return None
        return entry.withheld[1]

    def release_withheld(self) -> list[QueueEntry]:
        """Removes and returns the entries of `withheld` whose events may be read now."""
        withheld, self.withheld, released = self.withheld, [], []
        for entry in withheld:
            if self.visible_events(entry) is None:
                entry.withheld = None
                released.append(entry)
            else:
                self.withheld.append(entry)
        return released
