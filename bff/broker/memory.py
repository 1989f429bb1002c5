"""The queue in this process's memory. A restart loses what was waiting and what was running."""

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from bff.broker import ends
from bff.broker.groups import Entry, Group
from bff.broker.log import parsed_or_none, size_of
from bff.broker.queue import (
    LONG_ANSWER,
    MANY_WAITING,
    PAGE_EVENTS,
    Claim,
    Counts,
    Limits,
    Lost,
    Message,
    Page,
    Place,
    Receipt,
    StopReason,
    Words,
)
from bff.broker.remembered import Remembered
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, TooLarge, TooManyRequests
from bff.message_ids import group_mark, group_mark_of


class MemoryQueue:
    def __init__(self, limits: Limits = Limits(), clock: Callable[[], float] = time.time) -> None:  # noqa: B008 - frozen
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._entries: dict[str, Entry] = {}
        self._groups: dict[str, Group] = {}
        self._claimable: deque[Group] = deque()
        self._finished: OrderedDict[str, Entry] = OrderedDict()
        self._finished_bytes = 0
        self._held_bytes = 0
        self._client_ids: Remembered[tuple[str, str], tuple[str, bytes]] = Remembered()
        """By group and client's own id: the message's, and what it says."""
        self._expired: Remembered[str, str] = Remembered()
        """By message: its user."""
        self._last_id = (0, 0)
        self._tell_stop: list[Callable[[str, StopReason], None]] = []

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        mark = group_mark_of(message.id, message.user_id)
        digest = sha256(json.dumps(message.content, sort_keys=True).encode()).digest() if client_message_id else b""
        interrupted = None
        with self._lock:
            if client_message_id and (known := self._client_ids.get((mark, client_message_id))):
                return self._again(known, digest)
            group = self._groups.get(mark) or Group(mark)
            if joined := group.same_run(message):
                return Receipt(joined.message.id, joined.ahead)
            self._check_room(message, group, on_busy)
            now = self._clock()
            entry = Entry(message, group, touched=now, unread_since=now, left_at=now)
            self._groups[mark] = group
            self._entries[message.id] = group.entries[message.id] = entry
            self._held_bytes += message.size
            if client_message_id:
                entry.client_key = (mark, client_message_id)
                self._client_ids.keep(entry.client_key, (message.id, digest), now)
            if on_busy == "interrupt" and group.running is not None:
                interrupted = group.running
                self._stop(interrupted, "stopped")
                group.waiting.appendleft(entry)
            else:
                group.waiting.append(entry)
            self._tell_positions(group)
            if claim and entry.ahead == 0:
                return Receipt(message.id, 0, self._claim_next(group))
            self._offer(group)
            receipt = Receipt(message.id, entry.ahead)
        if interrupted:
            self._tell(interrupted)
        return receipt

    def claim(self, timeout: float) -> Claim | None:
        with self._work:
            if not self._work.wait_for(lambda: self._claimable, timeout):
                return None
            return self._claim_next(self._claimable.popleft())

    def renew(self, claim: Claim) -> StopReason | None:
        with self._lock:
            return self._claimed(claim, concluded=True).stopping

    def release(self, claim: Claim) -> None:
        with self._lock:
            entry = self._claimed(claim, concluded=True)
            if entry.state == "finished":
                self._vacate(entry.group)
                return
            if not entry.committed and (entry.said or entry.stopping):
                self._finish(entry, [ends.interrupted() if entry.said else ends.stopped()])
                return
            group = entry.group
            group.running = None
            entry.state = "queued"
            group.waiting.appendleft(entry)
            self._tell_positions(group)
            self._offer(group)

    def append(self, claim: Claim, words: Sequence[Words], *, said: bool = True) -> None:
        with self._lock:
            entry = self._claimed(claim)
            entry.said = entry.said or (said and bool(words))
            if entry.log.size + size_of(words) > self._limits.log_bytes:
                raise TooLarge(LONG_ANSWER)
            self._write(entry, words)

    def commit(self, claim: Claim) -> bool:
        with self._lock:
            entry = self._claimed(claim)
            entry.committed = entry.committed or not entry.stopping
            return entry.committed

    def finish(self, claim: Claim, words: Sequence[Words], *, forget: bool = False) -> None:
        with self._lock:
            entry = self._claimed(claim, concluded=not words)
            if entry.state == "finished":
                self._vacate(entry.group)
                return
            if forget and entry.client_key:
                self._client_ids.drop(entry.client_key)
            self._finish(entry, words)

    def conclude(self, claim: Claim, words: Sequence[Words]) -> None:
        with self._lock:
            self._end(self._claimed(claim), words)

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        with self._lock:
            entry = self._entry(user_id, message_id)
            events = entry.log.after(after)
            more = len(events) == PAGE_EVENTS
            return Page(events, entry.state == "finished" and not more, more)

    @contextmanager
    def listen(self, user_id: str, message_id: str, wake: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            entry = self._entry(user_id, message_id)
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
            return None if number is None else self._group(user_id, group).locate(number)

    def stop(self, user_id: str, message_id: str) -> None:
        with self._lock:
            entry = self._entry(user_id, message_id)
            self._stop(entry, "stopped")
        self._tell(entry)

    def cancel_if_unread(self, user_id: str, message_id: str) -> None:
        with self._lock:
            entry = self._entry(user_id, message_id)
            unread = entry.message.cancel_unread and not entry.readers
            if unread:
                self._stop(entry, "unread")
        if unread:
            self._tell(entry)

    def keep_unread(self, user_id: str, message_id: str) -> None:
        with self._lock:
            entry = self._entry(user_id, message_id)
            entry.message = entry.message._replace(cancel_unread=False)

    def on_stop(self, tell: Callable[[str, StopReason], None]) -> None:
        self._tell_stop.append(tell)

    def places(self, user_id: str, group: str = "") -> list[Place]:
        with self._lock:
            return self._group(user_id, group).places

    def sweep(self) -> None:
        now = self._clock()
        with self._lock:
            while self._finished and next(iter(self._finished.values())).touched < now - self._limits.retention:
                self._expire(next(iter(self._finished.values())))
            self._client_ids.forget(now)
            self._expired.forget(now)
            before = now - self._limits.grace
            unread = [entry for entry in self._entries.values() if entry.is_unread_since(before)]
            for entry in unread:
                self._stop(entry, "unread")
        for entry in unread:
            self._tell(entry)

    def is_worked(self) -> bool:
        return True  # By this process, from the first message on.

    def counts(self) -> Counts:
        with self._lock:
            running = sum(group.running is not None for group in self._groups.values())
            return Counts(queues=sum(bool(group.active) for group in self._groups.values()), running=running)

    def waiting(self) -> int:
        with self._lock:
            return sum(len(group.waiting) for group in self._groups.values())

    def _tell(self, entry: Entry) -> None:
        if entry.stopping and entry.state == "running":
            for tell in self._tell_stop:
                tell(entry.message.id, entry.stopping)

    # What follows is called with the lock held.

    def _group(self, user_id: str, group: str) -> Group:
        mark = group_mark(user_id, group)
        return self._groups.get(mark) or Group(mark)

    def _again(self, known: tuple[str, bytes], digest: bytes) -> Receipt:
        message_id, known_digest = known
        if known_digest != digest:
            raise IdempotencyConflict
        entry = self._entries.get(message_id)
        if entry is None:
            raise Expired(message_id=message_id)
        return Receipt(message_id, entry.ahead)

    def _check_room(self, message: Message, group: Group, on_busy: str) -> None:
        if group.runs_for(message.run_scope) or (on_busy == "reject" and group.active):
            raise Busy
        if len(group.waiting) >= self._limits.depth_per_user:
            raise TooManyRequests(MANY_WAITING)
        if self._held_bytes + message.size > self._limits.waiting_bytes:
            raise ServerFull

    def _entry(self, user_id: str, message_id: str) -> Entry:
        entry = self._entries.get(message_id)
        if entry is not None and entry.message.user_id == user_id:
            return entry
        if self._expired.get(message_id) == user_id:
            raise Expired(message_id=message_id)
        raise NotFound

    def _claim_next(self, group: Group) -> Claim:
        entry = group.running = group.waiting.popleft()
        entry.state = "running"
        entry.token += 1
        self._tell_positions(group)
        begun = entry.committed and entry.said
        return Claim(entry.message, entry.token, max(0.0, self._clock() - entry.left_at), begun)

    def _claimed(self, claim: Claim, *, concluded: bool = False) -> Entry:
        """`concluded`: also where the log has ended."""
        group = self._groups.get(group_mark_of(claim.message.id, claim.message.user_id))
        entry = group.running if group else None
        if entry is None or (entry.message.id, entry.token) != (claim.message.id, claim.token):
            raise Lost
        if entry.state == "finished" and not concluded:
            raise Lost
        return entry

    def _stop(self, entry: Entry, reason: StopReason) -> None:
        if entry.committed:
            return
        if entry.state == "running":
            entry.stopping = entry.stopping or reason
        elif entry.state == "queued":
            group = entry.group
            group.waiting.remove(entry)
            if not group.waiting and group in self._claimable:
                self._claimable.remove(group)
            self._end(entry, [ends.stopped()])
            self._tell_positions(group)

    def _finish(self, entry: Entry, words: Sequence[Words]) -> None:
        self._end(entry, words)
        self._vacate(entry.group)

    def _vacate(self, group: Group) -> None:
        """Nothing of it runs any more."""
        group.running = None
        self._offer(group)
        self._drop_if_empty(group)

    def _offer(self, group: Group) -> None:
        if group.waiting and group.running is None and group not in self._claimable:
            self._claimable.append(group)
            self._work.notify()

    def _write(self, entry: Entry, words: Sequence[Words]) -> None:
        for said in words:
            self._last_id = max((int(self._clock() * 1000), 0), (self._last_id[0], self._last_id[1] + 1))
            entry.log.append(self._last_id, said)
        entry.touched = self._clock()
        for wake in entry.readers:
            wake()

    def _end(self, entry: Entry, words: Sequence[Words]) -> None:
        entry.state = "finished"
        self._write(entry, [*words, ends.done(entry.message.id)])
        self._held_bytes -= entry.message.size
        entry.message = entry.message._replace(content={}, size=0)
        self._finished[entry.message.id] = entry
        self._finished_bytes += entry.log.size
        while self._finished_bytes > self._limits.log_bytes and len(self._finished) > 1:
            self._expire(next(iter(self._finished.values())))

    def _tell_positions(self, group: Group) -> None:
        for position, entry in enumerate(group.waiting, start=1):
            words = ("queued", json.dumps({"message_id": entry.message.id, "position": position}))
            if not entry.log.events or entry.log.events[-1][:2] != words:
                self._write(entry, [words])

    def _expire(self, entry: Entry) -> None:
        group = entry.group
        del self._finished[entry.message.id]
        del self._entries[entry.message.id]
        del group.entries[entry.message.id]
        self._drop_if_empty(group)
        self._finished_bytes -= entry.log.size
        self._expired.keep(entry.message.id, entry.message.user_id, self._clock())

    def _drop_if_empty(self, group: Group) -> None:
        if not group.entries and group.running is None:
            self._groups.pop(group.mark, None)
