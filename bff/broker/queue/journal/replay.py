"""What was journalled becomes the queue's state again: at a start, and while another process that answers is still there."""

from typing import Any, Final

from bff.broker.queue.base import Message
from bff.broker.queue.groups import Group, QueueEntry
from bff.broker.queue.journal.file import Record
from bff.broker.queue.log import Log, parsed, size_of
from bff.broker.queue.state import State
from bff.upstream.message_ids import group_mark_of

ID_MILLISECONDS: Final = 60_000
"""By which new ids are ahead of those in the file. What was told and not yet committed when a process died had later ones
than those; a process that is still there gives later ones."""
WISHES: Final = frozenset({"stopped", "unread", "keep"})


class StateReplay:
    def __init__(self, state: State) -> None:
        self._state = state
        self._started = False
        self.stopping: list[QueueEntry] = []
        """Those whose workers are to be told to stop."""

    def reset(self) -> None:
        self._state.clear()

    def apply(self, record: Record, position: int) -> None:
        kind, *about = record
        if kind == "new":
            self._introduce(position, *about)
        elif kind in {"client", "free", "expired"}:
            self._remember(kind, *about)
        elif (entry := self._state.entries.get(about[0])) is not None:
            self._change(entry, kind, *about[1:])
        if kind == "gone":
            self._state.last_id = max(self._state.last_id, (about[1], about[2]))

    def obey(self, record: Record) -> None:
        """What the next process was asked for and this one has to do."""
        kind, message_id = record[:2]
        entry = self._state.entries.get(message_id)
        if entry is None or entry.foreign or kind not in WISHES:
            return
        if kind == "keep":
            self._state.continue_without_readers(entry)
        elif kind == "stopped" or entry.may_be_cancelled:
            self._state.stop(entry, kind)
            self.stopping.append(entry)

    def join(self) -> None:
        """What was applied is another process's, which answers it."""
        if not self._started and self._state.last_id > (0, 0):
            self._state.last_id = self._state.last_id[0] + ID_MILLISECONDS, 0
        self._started = True

    def adopt(self) -> None:
        """What others were answering is handed back, and the first of those that wait goes on."""
        state = self._state
        foreign = [entry for entry in state.entries.values() if entry.foreign]
        self.join()
        for entry in foreign:
            entry.foreign = False
            entry.unread_since = state.clock()
        for entry in foreign:
            if entry.group.running is entry:
                state.hand_back(entry)
            elif entry.state == "queued" and entry.stopping:
                state.stop(entry, entry.stopping)
        state.finished = type(state.finished)(sorted(state.finished.items(), key=lambda item: item[1].touched))
        waiting = [group for group in state.groups.values() if group.waiting]
        for group in sorted(waiting, key=lambda group: group.waiting[0].rank):
            state.tell_positions(group)
            state.offer(group)

    def rewrite(self) -> None:
        for entry in self._state.entries.values():
            self._state.recorder.rewrite(entry)

    def _introduce(self, position: int, fields: list[Any], left_at: float, client_key: list[str] | None) -> None:
        state, message = self._state, Message(*fields)
        entry = state.entries.get(message.id)
        if entry is None:
            mark = group_mark_of(message.id, message.user_id)
            group = state.groups.setdefault(mark, Group(mark))
            entry = QueueEntry(message, group, touched=left_at, unread_since=left_at, left_at=left_at, foreign=True)
            state.entries[message.id] = group.entries[message.id] = entry
        else:
            self._take_out(entry)  # It was written anew, and its log follows.
            entry.message, entry.log = message, Log()
        entry.client_key = (client_key[0], client_key[1]) if client_key else None
        entry.since = position
        entry.state = "queued"
        self._put(entry)

    def _remember(self, kind: str, *about: Any) -> None:
        state = self._state
        if kind == "client":
            mark, client_id, message_id, digest, at = about
            state.client_ids.keep((mark, client_id), (message_id, digest), at)
        elif kind == "free":
            state.client_ids.drop((about[0], about[1]))
        else:
            state.expired.keep(about[0], about[1], about[2])

    def _change(self, entry: QueueEntry, kind: str, *about: Any) -> None:
        state = self._state
        if kind == "event":
            number = parsed(about[0])
            state.last_id = max(state.last_id, number)
            entry.log.append(number, (about[1], about[2]))
            if entry.state == "finished":
                state.finished_bytes += size_of([(about[1], about[2])])
            entry.wake()
        elif kind == "set":
            self._set(entry, *about)
        elif kind == "gone":
            self._take_out(entry)
            del state.entries[entry.message.id]
            del entry.group.entries[entry.message.id]
            if not entry.group.entries:
                state.groups.pop(entry.group.mark, None)
        elif kind == "keep":
            entry.message = entry.message._replace(cancel_on_disconnect=False)
        elif kind in WISHES and not entry.committed:
            entry.stopping = entry.stopping or kind  # type: ignore[assignment]

    def _set(self, entry: QueueEntry, *about: Any) -> None:
        self._take_out(entry)
        entry.state, entry.token, stopping, entry.started, entry.committed, entry.restarts, *more = about
        cancel_on_disconnect, entry.rank, entry.touched = more
        entry.stopping = stopping or entry.stopping
        entry.message = entry.message._replace(cancel_on_disconnect=cancel_on_disconnect)
        low, high = self._state.ranks
        self._state.ranks = min(low, entry.rank), max(high, entry.rank)
        self._put(entry)
        self._state.offer(entry.group)
        entry.wake()

    def _put(self, entry: QueueEntry) -> None:
        if entry.state == "queued":
            entry.group.insert(entry)
        elif entry.state == "running":
            entry.group.running = entry
        self._state.held_bytes += entry.message.size
        if entry.state == "finished":
            self._state.keep_finished(entry)

    def _take_out(self, entry: QueueEntry) -> None:
        """From where it waits, runs or is kept."""
        state, group = self._state, entry.group
        if entry in group.waiting:
            group.waiting.remove(entry)
        if group.running is entry:
            group.running = None
        if state.finished.pop(entry.message.id, None):
            state.finished_bytes -= entry.log.size
        state.held_bytes -= entry.message.size
        if not entry.foreign:
            state.retract(group)
