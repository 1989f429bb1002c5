"""The queue in this process's memory; with a journal (journal/), a restart loses nothing that callers were told."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from bff.broker.queue.base import (
    PAGE_EVENTS,
    REPLY_TOO_LONG,
    Claim,
    Counts,
    Limits,
    LogEntry,
    Message,
    Page,
    QueuePosition,
    Receipt,
    StopReason,
)
from bff.broker.queue.groups import Group, QueueEntry
from bff.broker.queue.journal import Journal
from bff.broker.queue.journal.replay import StateReplay
from bff.broker.queue.log import parse_event_id_or_none, size_of
from bff.broker.queue.memory_deliveries import MemoryDeliveries
from bff.broker.queue.state import State
from bff.errors import ServerFull, TooLarge
from bff.upstream.message_ids import group_mark, group_mark_of


class MemoryQueue:
    """With a journal, call `open` first."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._claimable = threading.Condition(self._lock)
        self._journal = journal
        self._state = State(limits, clock, journal, self._claimable.notify)
        self._replay = StateReplay(self._state)
        self.deliveries = MemoryDeliveries(self._state.deliveries, self._lock, clock, journal)
        self._stop_callbacks: list[Callable[[str, StopReason], None]] = []
        if journal:
            journal.bind(self._lock, self._replay, self._on_commit)

    @property
    def survives_restart(self) -> bool:
        return self._journal is not None

    def open(self) -> None:
        if self._journal:
            self._journal.open()

    def check_writes(self) -> None:
        if self._journal and self._journal.opened:
            self._journal.check()

    @contextmanager
    def draining(self) -> Iterator[None]:
        self.drain()
        yield
        self.close()

    def drain(self) -> None:
        """Lets the next process on this machine write into the journal and follow it."""
        if self._journal:
            self._journal.drain()

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        mark = group_mark_of(message.id, message.user_id)
        client_key = (mark, client_message_id) if client_message_id else None
        digest = sha256(json.dumps(message.content, sort_keys=True).encode()).hexdigest() if client_message_id else ""
        state, interrupted = self._state, None
        with self._lock:
            state.check_writable()
            if client_key and (known := state.client_ids.get(client_key)):
                return self._flushed(state.known_receipt(known, digest))
            group = state.groups.get(mark) or Group(mark)
            if joined := group.find_run(message):
                return self._flushed(Receipt(joined.message.id, joined.ahead))
            state.check_capacity(message, group, on_busy)
            if on_busy == "interrupt" and group.running is not None:
                interrupted = group.running
                state.stop(interrupted, "stopped")
            entry = state.add(message, group, client_key, digest, first=interrupted is not None)
            if claim and entry.ahead == 0:
                receipt = Receipt(message.id, 0, state.claim_next(group))
            else:
                state.make_claimable(group)
                receipt = Receipt(message.id, entry.ahead)
            if not self._flush() and entry.state == "queued":
                state.withdraw(entry)
                raise ServerFull
        if interrupted:
            self._notify_stop(interrupted)
        return receipt

    def claim(self, timeout: float) -> Claim | None:
        with self._claimable:
            if not self._claimable.wait_for(lambda: self._state.claimable, timeout):
                return None
            return self._state.claim_next(self._state.claimable.popleft())

    def claim_for(self, handler: str) -> Claim | None:
        with self._lock:
            return self._claim_first(list(self._state.claimable), handler)

    def claim_next(self, after: Message, handler: str) -> Claim | None:
        with self._lock:
            mark = group_mark_of(after.id, after.user_id)
            return self._claim_first([group for group in self._state.claimable if group.mark == mark], handler)

    def _claim_first(self, groups: Sequence[Group], handler: str) -> Claim | None:
        """Claims the next message of the first of these claimable groups in which it has this handler."""
        for group in groups:
            if group.waiting[0].message.handler == handler:
                self._state.claimable.remove(group)
                return self._state.claim_next(group)
        return None

    def renew(self, claim: Claim) -> StopReason | None:
        with self._lock:
            return self._state.claimed_entry(claim, may_be_concluded=True).stop_reason

    def release(self, claim: Claim) -> None:
        with self._lock:
            self._state.requeue(self._state.claimed_entry(claim, may_be_concluded=True))
            self._flush()

    def restart(self, claim: Claim) -> bool:
        with self._lock:
            entry = self._state.claimed_entry(claim)
            if restarted := self._state.restart(entry):
                self._state.recorder.update(entry)
                self._flush()
            return restarted

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        with self._lock:
            entry = self._state.claimed_entry(claim)
            if entry.log.size + size_of(entries) > self._limits.log_bytes:
                entry.started = entry.started or (started and bool(entries))
                raise TooLarge(REPLY_TOO_LONG)
            if self._state.append(entry, entries, started=started):
                self._flush()

    def commit(self, claim: Claim) -> bool:
        with self._lock:
            entry = self._state.claimed_entry(claim)
            if not entry.committed and not entry.stop_reason:
                entry.committed = True
                self._state.recorder.update(entry)
                self._flush()
            return entry.committed

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        with self._lock:
            entry = self._state.claimed_entry(claim, may_be_concluded=not entries)
            if entry.state == "finished":
                self._state.end_run(entry.group)
                return
            self._state.finish(entry, entries, forget=forget)
            self._flush()

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        with self._lock:
            self._state.conclude(self._state.claimed_entry(claim), entries)
            self._flush()

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        with self._lock:
            entry = self._state.entry(user_id, message_id)
            visible = self._state.logs.visible_events(entry)
            events = entry.log.after(after, visible)
            more = len(events) == PAGE_EVENTS
            return Page(events, entry.state == "finished" and visible is None and not more, more)

    @contextmanager
    def subscribe(
        self, user_id: str, message_id: str, wake: Callable[[], None], *, cancel_on_disconnect: bool = False
    ) -> Iterator[None]:
        with self._lock:
            entry = self._state.entry(user_id, message_id)
            entry.readers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                entry.readers.remove(wake)
                entry.unread_since = self._clock()

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        parsed_id = parse_event_id_or_none(event_id)
        with self._lock:
            entries = self._state.group(user_id, group)
            return None if parsed_id is None else entries.locate(parsed_id)

    def find(self, user_id: str, group: str, client_message_id: str) -> str | None:
        with self._lock:
            self._state.check_readable()
            known = self._state.client_ids.get((group_mark(user_id, group), client_message_id))
            return known[0] if known else None

    def stop(self, user_id: str, message_id: str) -> None:
        with self._lock:
            self._state.check_writable()
            entry = self._state.entry(user_id, message_id)
            self._state.stop(entry, "stopped")
            self._flush()
        self._notify_stop(entry)

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        with self._lock:
            self._state.check_writable()
            entry = self._state.entry(user_id, message_id)
            unread = entry.may_be_cancelled
            if unread:
                self._state.stop(entry, "unread")
                self._flush()
        if unread:
            self._notify_stop(entry)

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        with self._lock:
            self._state.check_writable()
            entry = self._state.entry(user_id, message_id)
            if entry.message.cancel_on_disconnect:
                self._state.continue_without_readers(entry)
                self._flush()

    def on_stop(self, callback: Callable[[str, StopReason], None]) -> None:
        self._stop_callbacks.append(callback)

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        with self._lock:
            return self._state.group(user_id, group).positions

    def sweep(self) -> None:
        now = self._clock()
        with self._lock:
            self._state.sweep(now)
            unread = [entry for entry in self._state.entries.values() if entry.is_unread_since(now - self._limits.grace)]
            for entry in unread:
                self._state.stop(entry, "unread")
            if unread:
                self._flush()
        for entry in unread:
            self._notify_stop(entry)

    def has_workers(self) -> bool:
        return True  # This process's worker, which starts with the first message.

    def counts(self) -> Counts:
        with self._lock:
            groups = self._state.groups.values()
            running = sum(group.running is not None for group in groups)
            return Counts(queues=sum(bool(group.active) for group in groups), running=running)

    def waiting(self) -> int:
        with self._lock:
            return sum(len(group.waiting) for group in self._state.groups.values())

    def _notify_stop(self, entry: QueueEntry) -> None:
        if entry.stop_reason and entry.state == "running" and not entry.foreign:
            for callback in self._stop_callbacks:
                callback(entry.message.id, entry.stop_reason)

    def _flush(self) -> bool:
        """Waits, with the lock released, until all changes so far are committed. Returns whether they are."""
        return self._journal is None or self._journal.buffer.flush()

    def _flushed(self, receipt: Receipt) -> Receipt:
        """Flushes first, because the message may have been added a moment ago and not be committed yet."""
        self._flush()
        return receipt

    def _on_commit(self) -> None:
        """Wakes readers of events that are committed now, and passes on stops requested by another process."""
        if not (self._state.logs.withheld or self._replay.stopping):
            return
        with self._lock:
            for entry in self._state.logs.release_withheld():
                entry.wake_readers()
            stopping, self._replay.stopping = self._replay.stopping, []
        for entry in stopping:
            self._notify_stop(entry)
