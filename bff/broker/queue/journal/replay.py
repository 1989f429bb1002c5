"""Rebuilds the queue's state from its journal: at startup, and while the previous process is still draining."""

from typing import Any, Final

from bff.broker import final_events
from bff.broker.queue.base import MAX_CLAIMS, Message
from bff.broker.queue.deliveries import Delivery
from bff.broker.queue.groups import Group, QueueEntry
from bff.broker.queue.journal.file import Record
from bff.broker.queue.log import Log, parse_event_id, size_of
from bff.broker.queue.state import State
from bff.upstream.message_ids import group_mark_of

ID_GAP_MILLISECONDS: Final = 60_000
"""New event ids start this far after those in the file: readers may have seen later ids that a dead process had not committed,
and a process that is still running assigns later ones."""
REQUESTS: Final = frozenset({"stopped", "unread", "keep"})


class StateReplay:
    def __init__(self, state: State) -> None:
        self._state = state
        self._is_past_gap = False
        self.stopping: list[QueueEntry] = []
        """Entries whose workers have to be asked to stop."""

    def reset(self) -> None:
        self._state.clear()

    def apply(self, record: Record, position: int) -> None:
        kind, *fields = record
        if kind == "new":
            self._add(position, *fields)
        elif kind in {"client", "free", "expired"}:
            self._remember(kind, *fields)
        elif kind.startswith("delivery"):
            self._apply_delivery(kind, position, *fields)
        elif (entry := self._state.entries.get(fields[0])) is not None:
            self._change(entry, kind, *fields[1:])
        if kind == "gone":
            self._state.logs.last_id = max(self._state.logs.last_id, (fields[1], fields[2]))

    def apply_request(self, record: Record) -> None:
        kind, message_id = record[:2]  # That of another kind may have no message id.
        if kind == "deliver":
            self._state.deliveries.send_again(message_id)
        entry = self._state.entries.get(message_id) if kind in REQUESTS else None
        if entry is None or entry.foreign:
            return
        if kind == "keep":
            self._state.continue_without_readers(entry)
        elif kind == "stopped" or entry.may_be_cancelled:
            self._state.stop(entry, kind)
            self.stopping.append(entry)

    def follow(self) -> None:
        if not self._is_past_gap and self._state.logs.last_id > (0, 0):
            self._state.logs.last_id = self._state.logs.last_id[0] + ID_GAP_MILLISECONDS, 0
        self._is_past_gap = True

    def take_over(self) -> None:
        state = self._state
        state.deliveries.take_over()
        foreign = [entry for entry in state.entries.values() if entry.foreign]
        self.follow()
        for entry in foreign:
            entry.foreign = False
            entry.unread_since = state.clock()
        for entry in foreign:
            if entry.group.running is entry:
                self._reap(entry)
            elif entry.state == "queued" and entry.stop_reason:
                state.stop(entry, entry.stop_reason)
        state.finished = type(state.finished)(sorted(state.finished.items(), key=lambda item: item[1].updated_at))
        waiting = [group for group in state.groups.values() if group.waiting]
        for group in sorted(waiting, key=lambda group: group.waiting[0].rank):
            state.logs.write_positions(group)
            state.make_claimable(group)

    def _reap(self, entry: QueueEntry) -> None:
        """Queues or finishes an entry whose process died."""
        if entry.state != "finished" and entry.token >= MAX_CLAIMS:
            is_stopped = entry.stop_reason and not entry.started
            self._state.finish(entry, [final_events.stopped() if is_stopped else final_events.interrupted()])
        else:
            self._state.requeue(entry)

    def rewrite(self) -> None:
        for entry in self._state.entries.values():
            self._state.recorder.rewrite(entry)
        for stored in self._state.deliveries.stored.values():
            self._state.recorder.delivery(stored)

    def _add(self, position: int, fields: list[Any], enqueued_at: float, client_key: list[str] | None) -> None:
        state, message = self._state, Message(*fields)
        entry = state.entries.get(message.id)
        if entry is None:
            mark = group_mark_of(message.id, message.user_id)
            group = state.groups.setdefault(mark, Group(mark))
            entry = QueueEntry(message, group, enqueued_at, enqueued_at, enqueued_at, foreign=True)
            state.entries[message.id] = group.entries[message.id] = entry
        else:
            self._unlink(entry)  # It was rewritten; its log follows.
            entry.message, entry.log = message, Log()
        entry.client_key = (client_key[0], client_key[1]) if client_key else None
        entry.first_record = position
        entry.state = "queued"
        self._link(entry)

    def _apply_delivery(self, kind: str, position: int, delivery_id: str, *fields: Any) -> None:
        deliveries = self._state.deliveries
        if kind == "delivery_set":
            deliveries.apply_update(delivery_id, *fields)
            return
        deliveries.apply_removal(delivery_id)  # A whole one may be recorded again.
        if kind == "delivery":
            url, webhook, message_id, user_id, ended_at, tries, due, failed, error, event = fields
            delivery = Delivery(delivery_id, url, webhook, message_id, user_id, ended_at, event, tries)
            stored = deliveries.add(delivery, due, failed=failed, error=error)
            stored.first_record, stored.foreign = position, True

    def _remember(self, kind: str, *fields: Any) -> None:
        state = self._state
        if kind == "client":
            mark, client_id, message_id, digest, at = fields
            state.client_ids.set((mark, client_id), (message_id, digest), at)
        elif kind == "free":
            state.client_ids.delete((fields[0], fields[1]))
        else:
            state.expired.set(fields[0], fields[1], fields[2])

    def _change(self, entry: QueueEntry, kind: str, *fields: Any) -> None:
        if kind == "event":
            self._append(entry, *fields)
        elif kind == "set":
            self._update(entry, *fields)
        elif kind == "gone":
            self._remove(entry)
        elif kind == "keep":
            entry.message = entry.message._replace(cancel_on_disconnect=False)
        elif kind in REQUESTS and not entry.committed:
            entry.stop_reason = entry.stop_reason or kind  # type: ignore[assignment]

    def _append(self, entry: QueueEntry, event_id: str, event_type: str, data: str) -> None:
        state, parsed_id = self._state, parse_event_id(event_id)
        state.logs.last_id = max(state.logs.last_id, parsed_id)
        entry.log.append(parsed_id, (event_type, data))
        if entry.state == "finished":
            state.finished_bytes += size_of([(event_type, data)])
        entry.wake_readers()

    def _update(self, entry: QueueEntry, *fields: Any) -> None:
        self._unlink(entry)
        entry.state, entry.token, stop_reason, entry.started, entry.committed, entry.restarts, *more = fields
        cancel_on_disconnect, entry.rank, entry.updated_at = more
        entry.stop_reason = stop_reason or entry.stop_reason
        entry.message = entry.message._replace(cancel_on_disconnect=cancel_on_disconnect)
        low, high = self._state.ranks
        self._state.ranks = min(low, entry.rank), max(high, entry.rank)
        self._link(entry)
        self._state.make_claimable(entry.group)
        entry.wake_readers()

    def _remove(self, entry: QueueEntry) -> None:
        self._unlink(entry)
        del self._state.entries[entry.message.id]
        del entry.group.entries[entry.message.id]
        if not entry.group.entries:
            self._state.groups.pop(entry.group.mark, None)

    def _link(self, entry: QueueEntry) -> None:
        """Adds the entry to the waiting, running or finished ones, according to its state."""
        if entry.state == "queued":
            entry.group.insert(entry)
        elif entry.state == "running":
            entry.group.running = entry
        self._state.active_bytes += entry.message.size
        if entry.state == "finished":
            self._state.add_finished(entry)

    def _unlink(self, entry: QueueEntry) -> None:
        """Undoes `_link`."""
        state, group = self._state, entry.group
        if entry in group.waiting:
            group.waiting.remove(entry)
        if group.running is entry:
            group.running = None
        if state.finished.pop(entry.message.id, None):
            state.finished_bytes -= entry.log.size
        state.active_bytes -= entry.message.size
        if not entry.foreign:
            state.discard_claimable(group)
