"""The state of the in-memory queue and its transitions. Every method is called with the queue's lock held.

Each change that has to survive a restart is recorded, if there is a journal.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from bff.broker import final_events
from bff.broker.queue.base import (
    MAX_RESTARTS,
    TOO_MANY_WAITING,
    Claim,
    LeaseLost,
    Limits,
    LogEntry,
    Message,
    Receipt,
    StopReason,
)
from bff.broker.queue.groups import Group, QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.recorder import Recorder
from bff.broker.queue.log_writer import LogWriter
from bff.broker.queue.memory_deliveries import DeliveryState
from bff.broker.queue.ttl_cache import TTLCache
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, TooManyRequests
from bff.upstream.message_ids import group_mark, group_mark_of

ClientKey = tuple[str, str]
"""A group and a `client_message_id`."""


class State:
    def __init__(
        self, limits: Limits, clock: Callable[[], float], journal: Journal | None, on_claimable: Callable[[], None]
    ) -> None:
        """`on_claimable` is called when there is a message to claim."""
        self.limits = limits
        self.clock = clock
        self.journal = journal
        self.recorder = Recorder(journal, clock)
        self.logs = LogWriter(clock, journal, self.recorder)
        self.deliveries = DeliveryState(clock, self.recorder)
        self._on_claimable = on_claimable
        self.clear()

    def clear(self) -> None:
        self.logs.clear()
        self.deliveries.clear()
        self.entries: dict[str, QueueEntry] = {}
        self.groups: dict[str, Group] = {}
        self.claimable: deque[Group] = deque()
        self.finished: OrderedDict[str, QueueEntry] = OrderedDict()
        self.finished_bytes = 0
        self.active_bytes = 0
        """Size of the messages that wait or run."""
        self.client_ids: TTLCache[ClientKey, tuple[str, str]] = TTLCache()
        """The message's id and a digest of its content."""
        self.expired: TTLCache[str, str] = TTLCache()
        """User ids by message id."""
        self.ranks = (0, 0)
        """The lowest and the highest rank in use."""

    # Lookups.

    def group(self, user_id: str, group: str) -> Group:
        self.check_readable()
        mark = group_mark(user_id, group)
        return self.groups.get(mark) or Group(mark)

    def entry(self, user_id: str, message_id: str) -> QueueEntry:
        """Raises NotFound, Expired, StorageUnavailable."""
        self.check_readable()
        entry = self.entries.get(message_id)
        if entry is not None and entry.message.user_id == user_id:
            return entry
        if self.expired.get(message_id) == user_id:
            raise Expired(message_id=message_id)
        raise NotFound

    def claimed_entry(self, claim: Claim, *, may_be_concluded: bool = False) -> QueueEntry:
        """Raises LeaseLost; also for a concluded message, unless `may_be_concluded`."""
        group = self.groups.get(group_mark_of(claim.message.id, claim.message.user_id))
        entry = group.running if group else None
        if entry is None or (entry.message.id, entry.token) != (claim.message.id, claim.token):
            raise LeaseLost
        if entry.state == "finished" and not may_be_concluded:
            raise LeaseLost
        return entry

    def check_readable(self) -> None:
        """Raises StorageUnavailable while another process owns the journal, but not after it was handed over."""
        if self.journal and not self.journal.closing:
            self.check_writable()

    def check_writable(self) -> None:
        """Raises StorageUnavailable while another process owns the journal, and after it was handed over."""
        if self.journal and self.journal.role is None:
            self.journal.check()

    # Adding messages.

    def known_receipt(self, known: tuple[str, str], digest: str) -> Receipt:
        """The receipt of a message found by its `client_message_id`. Raises IdempotencyConflict, Expired."""
        message_id, known_digest = known
        if known_digest != digest:
            raise IdempotencyConflict
        entry = self.entries.get(message_id)
        if entry is None:
            raise Expired(message_id=message_id)
        return Receipt(message_id, entry.ahead)

    def check_capacity(self, message: Message, group: Group, on_busy: str) -> None:
        if group.is_scope_busy(message.run_scope) or (on_busy == "reject" and group.active):
            raise Busy
        if len(group.waiting) >= self.limits.depth_per_user:
            raise TooManyRequests(TOO_MANY_WAITING)
        undelivered_bytes = self.deliveries.size if message.webhook else 0
        if self.active_bytes + undelivered_bytes + message.size > self.limits.waiting_bytes:
            raise ServerFull
        if self.journal:
            self.journal.check()

    def add(self, message: Message, group: Group, client_key: ClientKey | None, digest: str, *, first: bool) -> QueueEntry:
        """`first`: before all waiting messages of the group."""
        now = self.clock()
        entry = QueueEntry(message, group, updated_at=now, unread_since=now, enqueued_at=now, client_key=client_key)
        entry.rank = self.next_rank(first=first)
        self.groups[group.mark] = group
        self.entries[message.id] = group.entries[message.id] = entry
        self.active_bytes += message.size
        if client_key:
            self.client_ids.set(client_key, (message.id, digest), now)
            self.recorder.remember("client", *client_key, message.id, digest, now)
        group.insert(entry)
        self.recorder.add(entry)
        self.logs.write_positions(group)
        return entry

    def next_rank(self, *, first: bool = False) -> int:
        low, high = self.ranks
        self.ranks = (low - 1, high) if first else (low, high + 1)
        return low - 1 if first else high + 1

    def withdraw(self, entry: QueueEntry) -> None:
        """Undoes `add` for a waiting entry that could not be committed."""
        self._remove_from_waiting(entry)
        self.active_bytes -= entry.message.size
        self._free_client_id(entry)
        self._remove(entry)
        self.logs.write_positions(entry.group)

    def _remove_from_waiting(self, entry: QueueEntry) -> None:
        entry.group.waiting.remove(entry)
        self.discard_claimable(entry.group)

    def discard_claimable(self, group: Group) -> None:
        """Removes the group from `claimable` if it has no waiting messages."""
        if not group.waiting and group in self.claimable:
            self.claimable.remove(group)

    # Running messages.

    def claim_next(self, group: Group) -> Claim:
        entry = group.running = group.waiting.pop(0)
        entry.state = "running"
        entry.token += 1
        self.recorder.update(entry)
        self.logs.write_positions(group)
        was_started = entry.committed and entry.started
        return Claim(entry.message, entry.token, max(0.0, self.clock() - entry.enqueued_at), was_started)

    def make_claimable(self, group: Group) -> None:
        """Adds the group to `claimable` if its next message may be claimed here."""
        if group.waiting and group.running is None and not group.waiting[0].foreign and group not in self.claimable:
            self.claimable.append(group)
            self._on_claimable()

    def requeue(self, entry: QueueEntry) -> None:
        """Handles an entry without a worker: it was released, or its process was gone when the journal was read.

        A message whose output has not started, or was committed, is queued again, as is one that may restart; any other
        finishes.
        """
        if entry.state == "finished":
            self.end_run(entry.group)
        elif not entry.committed and (entry.started or entry.stop_reason) and not self.restart(entry):
            self.finish(entry, [final_events.interrupted() if entry.started else final_events.stopped()])
        else:
            group = entry.group
            group.running = None
            entry.state = "queued"
            entry.rank = self.next_rank(first=True)
            group.waiting.insert(0, entry)
            self.recorder.update(entry)
            self.logs.write_positions(group)
            self.make_claimable(group)

    def restart(self, entry: QueueEntry) -> bool:
        """Restarts the reply with a `restart` event, if it may be. Returns whether it did."""
        if entry.stop_reason or not entry.message.repeatable or entry.restarts >= MAX_RESTARTS:
            return False
        entry.restarts += 1
        entry.started = entry.committed = False
        self.logs.write(entry, [final_events.restart()])
        return True

    def append(self, entry: QueueEntry, entries: Sequence[LogEntry], *, started: bool) -> bool:
        """Returns whether output starts with these entries.

        They are withheld until the start is committed, so that after a crash it is known that output had started.
        """
        first = started and bool(entries) and not entry.started
        if first:
            entry.started = True
            self.recorder.update(entry)
        self.logs.write(entry, entries, withhold=first)
        return first

    def stop(self, entry: QueueEntry, reason: StopReason) -> None:
        if entry.committed or entry.state == "finished":
            return
        if entry.foreign:
            if reason == "stopped":  # Only the process that owns it knows whether it has readers.
                entry.stop_reason = entry.stop_reason or reason
            self.recorder.request(reason, entry)
        elif entry.state == "running":
            entry.stop_reason = entry.stop_reason or reason
            self.recorder.update(entry)
        else:
            self._remove_from_waiting(entry)
            self.conclude(entry, [final_events.stopped()])
            self.logs.write_positions(entry.group)

    def continue_without_readers(self, entry: QueueEntry) -> None:
        entry.message = entry.message._replace(cancel_on_disconnect=False)
        if entry.foreign:
            self.recorder.request("keep", entry)
        else:
            self.recorder.update(entry)

    def finish(self, entry: QueueEntry, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        if forget:
            self._free_client_id(entry)
            entry.message = entry.message._replace(webhook="")
        self.conclude(entry, entries)
        self.end_run(entry.group)

    def end_run(self, group: Group) -> None:
        """Clears the group's running entry, so that its next message may be claimed."""
        group.running = None
        self.make_claimable(group)
        self._remove_if_empty(group)

    def conclude(self, entry: QueueEntry, entries: Sequence[LogEntry]) -> None:
        """Ends the entry's log; a running entry's group stays occupied until `end_run`."""
        entry.state = "finished"
        self.recorder.update(entry)
        self.logs.write(entry, [*entries, final_events.done(entry.message.id)], withhold=True)
        self.deliveries.add_for(entry.message, entries[-1] if entries else ("", ""))
        self.add_finished(entry)
        while self.finished_bytes > self.limits.log_bytes and len(self.finished) > 1:
            self.expire(next(iter(self.finished.values())))

    def add_finished(self, entry: QueueEntry) -> None:
        self.active_bytes -= entry.message.size
        entry.message = entry.message._replace(content={}, size=0)
        self.finished[entry.message.id] = entry
        self.finished_bytes += entry.log.size

    # Expiry.

    def expire(self, entry: QueueEntry) -> None:
        """Removes a finished entry and its log."""
        now = self.clock()
        del self.finished[entry.message.id]
        self.finished_bytes -= entry.log.size
        self._remove(entry)
        self.expired.set(entry.message.id, entry.message.user_id, now)
        self.recorder.remember("expired", entry.message.id, entry.message.user_id, now)

    def sweep(self, now: float) -> None:
        while self.finished and next(iter(self.finished.values())).updated_at < now - self.limits.retention:
            self.expire(next(iter(self.finished.values())))
        self.client_ids.expire(now)
        self.expired.expire(now)
        self.deliveries.expire(now)
        size = self.active_bytes + self.deliveries.size + sum(entry.log.size for entry in self.entries.values())
        self.recorder.compact(self.entries.values(), self.deliveries.stored.values(), size)

    def _remove(self, entry: QueueEntry) -> None:
        del self.entries[entry.message.id]
        del entry.group.entries[entry.message.id]
        self._remove_if_empty(entry.group)
        self.recorder.remove(entry, self.logs.last_id)

    def _free_client_id(self, entry: QueueEntry) -> None:
        if entry.client_key:
            self.client_ids.delete(entry.client_key)
            self.recorder.remember("free", *entry.client_key)

    def _remove_if_empty(self, group: Group) -> None:
        if not (group.entries or group.running):
            self.groups.pop(group.mark, None)
