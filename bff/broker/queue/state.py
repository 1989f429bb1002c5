"""What the in-memory queue holds, and how it changes: each call is made with the queue's lock held.

Each change that a restart has to know of is recorded, where there is a journal.
"""

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from bff.broker import final_events
from bff.broker.queue.base import MANY_WAITING, MAX_RESTARTS, Claim, LeaseLost, Limits, LogEntry, Message, Receipt, StopReason
from bff.broker.queue.groups import Group, QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.recorder import Recorder
from bff.broker.queue.ttl_cache import TTLCache
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, TooManyRequests
from bff.upstream.message_ids import group_mark, group_mark_of

ClientKey = tuple[str, str]
"""A group and the client's own id for a message."""


class State:
    def __init__(
        self, limits: Limits, clock: Callable[[], float], journal: Journal | None, offered: Callable[[], None]
    ) -> None:
        """`offered` is called when there is a message to claim."""
        self.limits = limits
        self.clock = clock
        self.journal = journal
        self.recorder = Recorder(journal, clock)
        self._offered = offered
        self.clear()

    def clear(self) -> None:
        self.entries: dict[str, QueueEntry] = {}
        self.groups: dict[str, Group] = {}
        self.claimable: deque[Group] = deque()
        self.finished: OrderedDict[str, QueueEntry] = OrderedDict()
        self.finished_bytes = 0
        self.held_bytes = 0
        self.client_ids: TTLCache[ClientKey, tuple[str, str]] = TTLCache()
        """The message's id, and a digest of what it says."""
        self.expired: TTLCache[str, str] = TTLCache()
        """By message: its user."""
        self.last_id = (0, 0)
        self.ranks = (0, 0)
        """The lowest and the highest one that was given."""
        self.held: list[QueueEntry] = []
        """Those with events that must not be read before they are committed."""

    # What is asked for.

    def group(self, user_id: str, group: str) -> Group:
        self.check_open()
        mark = group_mark(user_id, group)
        return self.groups.get(mark) or Group(mark)

    def entry(self, user_id: str, message_id: str) -> QueueEntry:
        self.check_open()
        entry = self.entries.get(message_id)
        if entry is not None and entry.message.user_id == user_id:
            return entry
        if self.expired.get(message_id) == user_id:
            raise Expired(message_id=message_id)
        raise NotFound

    def claimed(self, claim: Claim, *, concluded: bool = False) -> QueueEntry:
        """`concluded`: also where the log has ended."""
        group = self.groups.get(group_mark_of(claim.message.id, claim.message.user_id))
        entry = group.running if group else None
        if entry is None or (entry.message.id, entry.token) != (claim.message.id, claim.token):
            raise LeaseLost
        if entry.state == "finished" and not concluded:
            raise LeaseLost
        return entry

    def check_open(self) -> None:
        """Raises Away while the journal is another process's, which alone knows what is kept."""
        if self.journal and not self.journal.closing:
            self.check_owner()

    def check_owner(self) -> None:
        """Raises Away also after the journal was handed over."""
        if self.journal and self.journal.role is None:
            self.journal.check()

    def visible(self, entry: QueueEntry) -> int | None:
        """How many of its events may be read; None for all."""
        if entry.held is None or self.journal is None or self.journal.buffer.is_done(entry.held[0]):
            return None
        return entry.held[1]

    def released(self) -> list[QueueEntry]:
        """Those of `held` whose events may be read by now."""
        released = [entry for entry in self.held if self.visible(entry) is None]
        self.held = [entry for entry in self.held if self.visible(entry) is not None]
        for entry in released:
            entry.held = None
        return released

    # Coming in.

    def again(self, known: tuple[str, str], digest: str) -> Receipt:
        message_id, known_digest = known
        if known_digest != digest:
            raise IdempotencyConflict
        entry = self.entries.get(message_id)
        if entry is None:
            raise Expired(message_id=message_id)
        return Receipt(message_id, entry.ahead)

    def check_room(self, message: Message, group: Group, on_busy: str) -> None:
        if group.runs_for(message.run_scope) or (on_busy == "reject" and group.active):
            raise Busy
        if len(group.waiting) >= self.limits.depth_per_user:
            raise TooManyRequests(MANY_WAITING)
        if self.held_bytes + message.size > self.limits.waiting_bytes:
            raise ServerFull
        if self.journal:
            self.journal.check()

    def add(self, message: Message, group: Group, client_key: ClientKey | None, digest: str, *, first: bool) -> QueueEntry:
        """`first`: it is the group's next one."""
        now = self.clock()
        entry = QueueEntry(message, group, touched=now, unread_since=now, left_at=now, client_key=client_key)
        entry.rank = self.next_rank(first=first)
        self.groups[group.mark] = group
        self.entries[message.id] = group.entries[message.id] = entry
        self.held_bytes += message.size
        if client_key:
            self.client_ids.keep(client_key, (message.id, digest), now)
            self.recorder.remember("client", *client_key, message.id, digest, now)
        group.insert(entry)
        self.recorder.introduce(entry)
        self.tell_positions(group)
        return entry

    def next_rank(self, *, first: bool = False) -> int:
        low, high = self.ranks
        self.ranks = (low - 1, high) if first else (low, high + 1)
        return low - 1 if first else high + 1

    def withdraw(self, entry: QueueEntry) -> None:
        """As if it had never come."""
        group = entry.group
        group.waiting.remove(entry)
        self.retract(group)
        self.held_bytes -= entry.message.size
        self._free(entry)
        self._remove(entry)
        self.tell_positions(group)

    def retract(self, group: Group) -> None:
        """Nothing of it is offered any more, if nothing waits."""
        if not group.waiting and group in self.claimable:
            self.claimable.remove(group)

    # Running.

    def claim_next(self, group: Group) -> Claim:
        entry = group.running = group.waiting.popleft()
        entry.state = "running"
        entry.token += 1
        self.recorder.note(entry)
        self.tell_positions(group)
        begun = entry.committed and entry.started
        return Claim(entry.message, entry.token, max(0.0, self.clock() - entry.left_at), begun)

    def offer(self, group: Group) -> None:
        if group.waiting and group.running is None and not group.waiting[0].foreign and group not in self.claimable:
            self.claimable.append(group)
            self._offered()

    def hand_back(self, entry: QueueEntry) -> None:
        """Nobody answers it any more: its worker gave it back, or was gone when this process read the journal.

        Here it is decided what becomes of it: somebody else begins, or goes on with what was committed; or it ends.
        """
        if entry.state == "finished":
            self.vacate(entry.group)
        elif not entry.committed and (entry.started or entry.stopping) and not self.restarts(entry):
            self.finish(entry, [final_events.interrupted() if entry.started else final_events.stopped()])
        else:
            group = entry.group
            group.running = None
            entry.state = "queued"
            entry.rank = self.next_rank(first=True)
            group.waiting.appendleft(entry)
            self.recorder.note(entry)
            self.tell_positions(group)
            self.offer(group)

    def restarts(self, entry: QueueEntry) -> bool:
        """Whether it begins anew, which its log says then."""
        if entry.stopping or not entry.message.repeatable or entry.restarts >= MAX_RESTARTS:
            return False
        entry.restarts += 1
        entry.started = entry.committed = False
        self.write(entry, [final_events.restart()])
        return True

    def say(self, entry: QueueEntry, entries: Sequence[LogEntry], *, started: bool) -> bool:
        """Whether these are the first words that count: they may be read once it is known after a crash that there were any."""
        first = started and bool(entries) and not entry.started
        if first:
            entry.started = True
            self.recorder.note(entry)
        self.write(entry, entries, hold=first)
        return first

    def stop(self, entry: QueueEntry, reason: StopReason) -> None:
        if entry.committed or entry.state == "finished":
            return
        if entry.foreign:
            if reason == "stopped":  # Whether anybody reads it is known there.
                entry.stopping = entry.stopping or reason
            self.recorder.wish(reason, entry)
        elif entry.state == "running":
            entry.stopping = entry.stopping or reason
            self.recorder.note(entry)
        else:
            group = entry.group
            group.waiting.remove(entry)
            self.retract(group)
            self.end(entry, [final_events.stopped()])
            self.tell_positions(group)

    def continue_without_readers(self, entry: QueueEntry) -> None:
        entry.message = entry.message._replace(cancel_on_disconnect=False)
        if entry.foreign:
            self.recorder.wish("keep", entry)
        else:
            self.recorder.note(entry)

    def finish(self, entry: QueueEntry, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        if forget:
            self._free(entry)
        self.end(entry, entries)
        self.vacate(entry.group)

    def vacate(self, group: Group) -> None:
        """Nothing of it runs any more."""
        group.running = None
        self.offer(group)
        self._drop_if_empty(group)

    def write(self, entry: QueueEntry, entries: Sequence[LogEntry], *, hold: bool = False) -> None:
        first = len(entry.log.events)
        for said in entries:
            self.last_id = max((int(self.clock() * 1000), 0), (self.last_id[0], self.last_id[1] + 1))
            self.recorder.event(entry, entry.log.append(self.last_id, said))
        entry.touched = self.clock()
        if self.journal and hold:
            entry.held = self.journal.buffer.position, min(first, entry.held[1] if entry.held else first)
            self.held.append(entry)
            self.journal.buffer.hurry()
        elif not entry.held:
            entry.wake()

    def end(self, entry: QueueEntry, entries: Sequence[LogEntry]) -> None:
        entry.state = "finished"
        self.recorder.note(entry)
        self.write(entry, [*entries, final_events.done(entry.message.id)], hold=True)
        self.keep_finished(entry)
        while self.finished_bytes > self.limits.log_bytes and len(self.finished) > 1:
            self.expire(next(iter(self.finished.values())))

    def keep_finished(self, entry: QueueEntry) -> None:
        self.held_bytes -= entry.message.size
        entry.message = entry.message._replace(content={}, size=0)
        self.finished[entry.message.id] = entry
        self.finished_bytes += entry.log.size

    def tell_positions(self, group: Group) -> None:
        for position, entry in enumerate(group.waiting, start=1):
            entries = ("queued", json.dumps({"message_id": entry.message.id, "position": position}))
            if not entry.foreign and (not entry.log.events or entry.log.events[-1][:2] != entries):
                self.write(entry, [entries])

    # Going.

    def expire(self, entry: QueueEntry) -> None:
        now = self.clock()
        del self.finished[entry.message.id]
        self.finished_bytes -= entry.log.size
        self._remove(entry)
        self.expired.keep(entry.message.id, entry.message.user_id, now)
        self.recorder.remember("expired", entry.message.id, entry.message.user_id, now)

    def forget_outdated(self, now: float) -> None:
        while self.finished and next(iter(self.finished.values())).touched < now - self.limits.retention:
            self.expire(next(iter(self.finished.values())))
        self.client_ids.forget(now)
        self.expired.forget(now)
        held = self.held_bytes + sum(entry.log.size for entry in self.entries.values())
        self.recorder.compact(self.entries.values(), held)

    def _remove(self, entry: QueueEntry) -> None:
        del self.entries[entry.message.id]
        del entry.group.entries[entry.message.id]
        self._drop_if_empty(entry.group)
        self.recorder.gone(entry, self.last_id)

    def _free(self, entry: QueueEntry) -> None:
        if entry.client_key:
            self.client_ids.drop(entry.client_key)
            self.recorder.remember("free", *entry.client_key)

    def _drop_if_empty(self, group: Group) -> None:
        if not (group.entries or group.running):
            self.groups.pop(group.mark, None)
