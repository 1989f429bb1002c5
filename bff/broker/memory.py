"""The queue in this process's memory. A restart loses what was waiting and what was running."""

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

from bff.broker import ends
from bff.broker.log import Log, size_of
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
    State,
    Words,
)
from bff.broker.remembered import Remembered
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, TooLarge, TooManyRequests


@dataclass(eq=False)
class _Entry:
    message: Message
    touched: float
    unread_since: float
    left_at: float
    state: State = "queued"
    token: int = 0
    stopping: bool = False
    said: bool = False
    log: Log = field(default_factory=Log)
    readers: list[Callable[[], None]] = field(default_factory=list)


class MemoryQueue:
    def __init__(self, limits: Limits = Limits(), clock: Callable[[], float] = time.time) -> None:  # noqa: B008 - frozen
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._entries: dict[str, _Entry] = {}
        self._waiting: dict[str, deque[_Entry]] = {}
        self._running: dict[str, _Entry] = {}
        self._claimable: deque[str] = deque()
        self._finished: OrderedDict[str, _Entry] = OrderedDict()
        self._finished_bytes = 0
        self._held_bytes = 0
        self._client_ids: Remembered[tuple[str, str], tuple[str, bytes]] = Remembered()
        """By user and client's own id: the message's, and what it says."""
        self._expired: Remembered[str, str] = Remembered()
        """By message: its user."""
        self._last_id = (0, 0)
        self._tell_stop: list[Callable[[str], None]] = []

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str) -> Receipt:
        user_id = message.user_id
        digest = sha256(json.dumps(message.content, sort_keys=True).encode()).digest() if client_message_id else b""
        interrupted = None
        with self._lock:
            if client_message_id and (known := self._client_ids.get((user_id, client_message_id))):
                return self._again(known, digest)
            self._check_room(message, on_busy)
            now = self._clock()
            entry = _Entry(message, touched=now, unread_since=now, left_at=now)
            self._entries[message.id] = entry
            self._held_bytes += message.size
            if client_message_id:
                self._client_ids.keep((user_id, client_message_id), (message.id, digest), now)
            waiting = self._waiting.setdefault(user_id, deque())
            if on_busy == "interrupt" and (interrupted := self._running.get(user_id)):
                interrupted.stopping = True
                waiting.appendleft(entry)
            else:
                waiting.append(entry)
            self._tell_positions(user_id)
            self._offer(user_id)
            receipt = Receipt(message.id, self._ahead(entry))
        if interrupted:
            self._tell(interrupted)
        return receipt

    def claim(self, timeout: float) -> Claim | None:
        with self._work:
            if not self._work.wait_for(lambda: self._claimable, timeout):
                return None
            user_id = self._claimable.popleft()
            entry = self._waiting[user_id].popleft()
            entry.state = "running"
            entry.token += 1
            self._running[user_id] = entry
            self._tell_positions(user_id)
            return Claim(entry.message, entry.token, max(0.0, self._clock() - entry.left_at))

    def renew(self, claim: Claim) -> bool:
        with self._lock:
            return self._claimed(claim).stopping

    def release(self, claim: Claim) -> None:
        with self._lock:
            entry = self._claimed(claim)
            if entry.said or entry.stopping:
                self._finish(entry, [ends.interrupted() if entry.said else ends.stopped()])
                return
            user_id = claim.message.user_id
            del self._running[user_id]
            entry.state = "queued"
            self._waiting.setdefault(user_id, deque()).appendleft(entry)
            self._tell_positions(user_id)
            self._offer(user_id)

    def append(self, claim: Claim, words: Sequence[Words], *, said: bool = True) -> None:
        with self._lock:
            entry = self._claimed(claim)
            entry.said = entry.said or (said and bool(words))
            if entry.log.size + size_of(words) > self._limits.log_bytes:
                raise TooLarge(LONG_ANSWER)
            self._write(entry, words)

    def finish(self, claim: Claim, words: Sequence[Words]) -> None:
        with self._lock:
            self._finish(self._claimed(claim), words)

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

    def stop(self, user_id: str, message_id: str) -> None:
        with self._lock:
            entry = self._entry(user_id, message_id)
            self._stop(entry)
        self._tell(entry)

    def on_stop(self, tell: Callable[[str], None]) -> None:
        self._tell_stop.append(tell)

    def places(self, user_id: str) -> list[Place]:
        with self._lock:
            running = self._running.get(user_id)
            places = [Place(running.message.id, "running", 0)] if running else []
            waiting = enumerate(self._waiting.get(user_id, ()), start=1)
            return places + [Place(entry.message.id, "queued", position) for position, entry in waiting]

    def sweep(self) -> None:
        now = self._clock()
        with self._lock:
            while self._finished and next(iter(self._finished.values())).touched < now - self._limits.retention:
                self._expire(next(iter(self._finished.values())))
            self._client_ids.forget(now)
            self._expired.forget(now)
            unread = [entry for entry in self._entries.values() if self._is_unread(entry, now)]
            for entry in unread:
                self._stop(entry)
        for entry in unread:
            self._tell(entry)

    def is_worked(self) -> bool:
        return True  # By this process, from the first message on.

    def counts(self) -> Counts:
        with self._lock:
            return Counts(queues=len(self._waiting.keys() | self._running.keys()), running=len(self._running))

    def waiting(self) -> int:
        with self._lock:
            return sum(len(waiting) for waiting in self._waiting.values())

    def _tell(self, entry: _Entry) -> None:
        if entry.stopping and entry.state == "running":
            for tell in self._tell_stop:
                tell(entry.message.id)

    # What follows is called with the lock held.

    def _again(self, known: tuple[str, bytes], digest: bytes) -> Receipt:
        message_id, known_digest = known
        if known_digest != digest:
            raise IdempotencyConflict
        entry = self._entries.get(message_id)
        if entry is None:
            raise Expired(message_id=message_id)
        return Receipt(message_id, self._ahead(entry))

    def _check_room(self, message: Message, on_busy: str) -> None:
        waiting = self._waiting.get(message.user_id, ())
        if on_busy == "reject" and (waiting or message.user_id in self._running):
            raise Busy
        if len(waiting) >= self._limits.depth_per_user:
            raise TooManyRequests(MANY_WAITING)
        if self._held_bytes + message.size > self._limits.waiting_bytes:
            raise ServerFull

    def _ahead(self, entry: _Entry) -> int:
        """Messages of its user to be answered before it."""
        if entry.state != "queued":
            return 0
        user_id = entry.message.user_id
        return self._waiting[user_id].index(entry) + (user_id in self._running)

    def _entry(self, user_id: str, message_id: str) -> _Entry:
        entry = self._entries.get(message_id)
        if entry is not None and entry.message.user_id == user_id:
            return entry
        if self._expired.get(message_id) == user_id:
            raise Expired(message_id=message_id)
        raise NotFound

    def _is_unread(self, entry: _Entry, now: float) -> bool:
        if not entry.message.cancel_unread or entry.readers or entry.state == "finished" or entry.stopping:
            return False
        return entry.unread_since < now - self._limits.grace

    def _claimed(self, claim: Claim) -> _Entry:
        entry = self._running.get(claim.message.user_id)
        if entry is None or entry.message.id != claim.message.id or entry.token != claim.token:
            raise Lost
        return entry

    def _stop(self, entry: _Entry) -> None:
        if entry.state == "running":
            entry.stopping = True
        elif entry.state == "queued":
            user_id = entry.message.user_id
            waiting = self._waiting[user_id]
            waiting.remove(entry)
            if not waiting:
                self._waiting.pop(user_id)
                if user_id in self._claimable:
                    self._claimable.remove(user_id)
            self._end(entry, [ends.stopped()])
            self._tell_positions(user_id)

    def _finish(self, entry: _Entry, words: Sequence[Words]) -> None:
        user_id = entry.message.user_id
        del self._running[user_id]
        self._end(entry, words)
        if self._waiting.get(user_id):
            self._offer(user_id)
        else:
            self._waiting.pop(user_id, None)

    def _offer(self, user_id: str) -> None:
        if user_id not in self._running and user_id not in self._claimable:
            self._claimable.append(user_id)
            self._work.notify()

    def _write(self, entry: _Entry, words: Sequence[Words]) -> None:
        for said in words:
            self._last_id = max((int(self._clock() * 1000), 0), (self._last_id[0], self._last_id[1] + 1))
            entry.log.append(self._last_id, said)
        entry.touched = self._clock()
        for wake in entry.readers:
            wake()

    def _end(self, entry: _Entry, words: Sequence[Words]) -> None:
        entry.state = "finished"
        self._write(entry, [*words, ends.done(entry.message.id)])
        self._held_bytes -= entry.message.size
        entry.message = entry.message._replace(content={}, size=0)
        self._finished[entry.message.id] = entry
        self._finished_bytes += entry.log.size
        while self._finished_bytes > self._limits.log_bytes and len(self._finished) > 1:
            self._expire(next(iter(self._finished.values())))

    def _tell_positions(self, user_id: str) -> None:
        for position, entry in enumerate(self._waiting.get(user_id, ()), start=1):
            words = ("queued", json.dumps({"message_id": entry.message.id, "position": position}))
            if not entry.log.events or entry.log.events[-1][:2] != words:
                self._write(entry, [words])

    def _expire(self, entry: _Entry) -> None:
        del self._finished[entry.message.id]
        del self._entries[entry.message.id]
        self._finished_bytes -= entry.log.size
        self._expired.keep(entry.message.id, entry.message.user_id, self._clock())
