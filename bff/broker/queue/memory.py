"""The queue in this process's memory. With a journal a restart loses nothing of what callers were told (journal.py)."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from bff.broker.queue.base import (
    LONG_ANSWER,
    PAGE_EVENTS,
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
from bff.broker.queue.log import parsed_or_none, size_of
from bff.broker.queue.state import State
from bff.errors import ServerFull, TooLarge
from bff.upstream.message_ids import group_mark_of


class MemoryQueue:
    """With a journal, `open` comes before everything else."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._journal = journal
        self._state = State(limits, clock, journal, self._work.notify)
        self._replay = StateReplay(self._state)
        self._tell_stop: list[Callable[[str, StopReason], None]] = []
        if journal:
            journal.bind(self._lock, self._replay, self._on_commit)

    @property
    def survives_restart(self) -> bool:
        return self._journal is not None

    is_journalled = survives_restart  # The old name, until its last user is gone.

    def open(self) -> None:
        """Idempotent."""
        if self._journal:
            self._journal.open()

    def check_writes(self) -> None:
        """Raises Away, ServerFull while new messages cannot be journalled."""
        if self._journal and self._journal.opened:
            self._journal.check()

    @contextmanager
    def draining(self) -> Iterator[None]:
        self.drain()
        yield
        self.close()

    def drain(self) -> None:
        """The next process on this machine may begin with what this one does not answer."""
        if self._journal:
            self._journal.drain()

    def close(self) -> None:
        """Leaves everything to the next process."""
        if self._journal:
            self._journal.close()

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        mark = group_mark_of(message.id, message.user_id)
        client_key = (mark, client_message_id) if client_message_id else None
        digest = sha256(json.dumps(message.content, sort_keys=True).encode()).hexdigest() if client_message_id else ""
        state, interrupted = self._state, None
        with self._lock:
            state.check_owner()
            if client_key and (known := state.client_ids.get(client_key)):
                return self._committed(state.again(known, digest))
            group = state.groups.get(mark) or Group(mark)
            if joined := group.same_run(message):
                return self._committed(Receipt(joined.message.id, joined.ahead))
            state.check_room(message, group, on_busy)
            if on_busy == "interrupt" and group.running is not None:
                interrupted = group.running
                state.stop(interrupted, "stopped")
            entry = state.add(message, group, client_key, digest, first=interrupted is not None)
            if claim and entry.ahead == 0:
                receipt = Receipt(message.id, 0, state.claim_next(group))
            else:
                state.offer(group)
                receipt = Receipt(message.id, entry.ahead)
            if not self._is_committed() and entry.state == "queued":
                state.withdraw(entry)
                raise ServerFull
        if interrupted:
            self._tell(interrupted)
        return receipt

    def claim(self, timeout: float) -> Claim | None:
        with self._work:
            if not self._work.wait_for(lambda: self._state.claimable, timeout):
                return None
            return self._state.claim_next(self._state.claimable.popleft())

    def claim_next(self, after: Message, handler: str) -> Claim | None:
        with self._lock:
            group = self._state.groups.get(group_mark_of(after.id, after.user_id))
            if group is None or group not in self._state.claimable or group.waiting[0].message.handler != handler:
                return None
            self._state.claimable.remove(group)
            return self._state.claim_next(group)

    def renew(self, claim: Claim) -> StopReason | None:
        with self._lock:
            return self._state.claimed(claim, concluded=True).stopping

    def release(self, claim: Claim) -> None:
        with self._lock:
            self._state.hand_back(self._state.claimed(claim, concluded=True))
            self._is_committed()

    def restart(self, claim: Claim) -> bool:
        with self._lock:
            entry = self._state.claimed(claim)
            if begins := self._state.restarts(entry):
                self._state.recorder.note(entry)
                self._is_committed()
            return begins

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        with self._lock:
            entry = self._state.claimed(claim)
            if entry.log.size + size_of(entries) > self._limits.log_bytes:
                entry.started = entry.started or (started and bool(entries))
                raise TooLarge(LONG_ANSWER)
            if self._state.say(entry, entries, started=started):
                self._is_committed()

    def commit(self, claim: Claim) -> bool:
        with self._lock:
            entry = self._state.claimed(claim)
            if not entry.committed and not entry.stopping:
                entry.committed = True
                self._state.recorder.note(entry)
                self._is_committed()
            return entry.committed

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        with self._lock:
            entry = self._state.claimed(claim, concluded=not entries)
            if entry.state == "finished":
                self._state.vacate(entry.group)
                return
            self._state.finish(entry, entries, forget=forget)
            self._is_committed()

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        with self._lock:
            self._state.end(self._state.claimed(claim), entries)
            self._is_committed()

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        with self._lock:
            entry = self._state.entry(user_id, message_id)
            visible = self._state.visible(entry)
            events = entry.log.after(after, visible)
            more = len(events) == PAGE_EVENTS
            return Page(events, entry.state == "finished" and visible is None and not more, more)

    @contextmanager
    def subscribe(self, user_id: str, message_id: str, wake: Callable[[], None]) -> Iterator[None]:
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
        number = parsed_or_none(event_id)
        with self._lock:
            found = self._state.group(user_id, group)
            return None if number is None else found.locate(number)

    def stop(self, user_id: str, message_id: str) -> None:
        with self._lock:
            self._state.check_owner()
            entry = self._state.entry(user_id, message_id)
            self._state.stop(entry, "stopped")
            self._is_committed()
        self._tell(entry)

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        with self._lock:
            self._state.check_owner()
            entry = self._state.entry(user_id, message_id)
            unread = entry.may_be_cancelled
            if unread:
                self._state.stop(entry, "unread")
                self._is_committed()
        if unread:
            self._tell(entry)

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        with self._lock:
            self._state.check_owner()
            entry = self._state.entry(user_id, message_id)
            if entry.message.cancel_on_disconnect:
                self._state.continue_without_readers(entry)
                self._is_committed()

    def on_stop(self, tell: Callable[[str, StopReason], None]) -> None:
        self._tell_stop.append(tell)

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        with self._lock:
            return self._state.group(user_id, group).positions

    def sweep(self) -> None:
        now = self._clock()
        with self._lock:
            self._state.forget_outdated(now)
            before = now - self._limits.grace
            unread = [entry for entry in self._state.entries.values() if entry.is_unread_since(before)]
            for entry in unread:
                self._state.stop(entry, "unread")
            if unread:
                self._is_committed()
        for entry in unread:
            self._tell(entry)

    def has_workers(self) -> bool:
        return True  # By this process, from the first message on.

    def counts(self) -> Counts:
        with self._lock:
            groups = self._state.groups.values()
            running = sum(group.running is not None for group in groups)
            return Counts(queues=sum(bool(group.active) for group in groups), running=running)

    def waiting(self) -> int:
        with self._lock:
            return sum(len(group.waiting) for group in self._state.groups.values())

    def _tell(self, entry: QueueEntry) -> None:
        if entry.stopping and entry.state == "running" and not entry.foreign:
            for tell in self._tell_stop:
                tell(entry.message.id, entry.stopping)

    def _is_committed(self) -> bool:
        """Waits, without the lock, until all that was done so far is in the journal; whether it is."""
        return self._journal is None or self._journal.buffer.flush()

    def _committed(self, receipt: Receipt) -> Receipt:
        """Of a message that is known: whoever brought it first may still wait for that."""
        self._is_committed()
        return receipt

    def _on_commit(self) -> None:
        """Events that had to be committed may be read now, and workers hear of stops that came from another process."""
        if not (self._state.held or self._replay.stopping):
            return
        with self._lock:
            for entry in self._state.released():
                entry.wake()
            stopping, self._replay.stopping = self._replay.stopping, []
        for entry in stopping:
            self._tell(entry)
