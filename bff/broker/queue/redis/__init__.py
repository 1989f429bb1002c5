"""The queue in Redis: any number of processes share it, and any of them may die.

One group's keys live together, and what changes them is a Lua script (lua/group/, whose first lines say which keys there
are). Groups with something to be looked after stand in one sorted set, `chat:due`, by when: a worker takes the first one
that is due, puts it off by a lease, and then asks that group's queue what there is. So whoever dies in between only
delays the group until somebody else looks, and the reaper is no part of its own: it is the look after a lease's end.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from bff.broker import final_events
from bff.broker.queue.base import (
    LONG_ANSWER,
    MANY_WAITING,
    Claim,
    Counts,
    LeaseLost,
    Limits,
    LogEntry,
    Message,
    Page,
    QueuePosition,
    Receipt,
    StopReason,
)
from bff.broker.queue.redis.keys import claim_key, digest_of, flat, group_of, queue_key, queue_of
from bff.broker.queue.redis.logs import Logs
from bff.broker.queue.redis.presence import Presence
from bff.broker.queue.redis.replies import claim_of, places_of, reason_of, tell_reaped
from bff.broker.queue.redis.schedule import Schedule
from bff.broker.queue.redis.subscriber import Subscriber
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, StorageUnavailable, TooLarge, TooManyRequests
from bff.ops import redis
from bff.ops.health import WriteProbe
from bff.ops.redis import Client, Scripts, keys_of, map_errors
from bff.upstream.message_ids import group_mark, group_mark_of

WORKER: Final = "chat:worker"
"""There while some worker sweeps."""
WORKER_SECONDS: Final = 5
LUA: Final = Path(__file__).parent / "lua"
CLAIMS_MOST: Final = 5
"""A message that takes its worker along each time is not tried for ever."""
WRITES_MOST: Final = 10_000
"""Claims of which a write is remembered that may have been done; some were given up."""
INTERRUPTED: Final = final_events.interrupted()[1]
STOPPED: Final = final_events.stopped()[1]


class RedisQueue:
    def __init__(self, client: Client, limits: Limits = Limits(), lease: float = 10.0) -> None:  # noqa: B008 - frozen
        """`lease`: seconds for which a claim holds without a sign of life."""
        self._client = client
        self._write_probe = WriteProbe(partial(redis.ping, client), partial(redis.check_writes, client))
        self._limits = limits
        self._lease = str(int(lease * 1_000_000))
        self._keep = (str(int(limits.retention * 1000)), str(limits.log_bytes))
        self._group = Scripts(client, LUA / "group", prelude=(LUA / "group.lua").read_text(encoding="utf-8"))
        self._logs = Logs(client, self._group)
        self._listener = Subscriber(client)
        self._due = Schedule(client, self._listener, self._lease)
        self._readers = Presence(client, limits.grace)
        self._writing: dict[tuple[str, int], str] = {}
        """The name of the write of a claim that may have been done or not."""

    @property
    def survives_restart(self) -> bool:
        return True

    def open(self) -> None:
        """Nothing to load: every call reads from Redis."""

    def check_writes(self) -> None:
        self._write_probe()

    def draining(self) -> AbstractContextManager[None]:
        return nullcontext()  # Other processes claim from the same queue all the time.

    def close(self) -> None:
        """Stops the background threads and closes all connections, the `client` too."""
        self._readers.close()
        self._listener.close()
        self._client.close()

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        group = group_of(message)
        content = json.dumps(message.content, sort_keys=True)
        keys = [queue_key(group)] + ([f"{keys_of(group)}c:{digest_of(client_message_id)}"] if client_message_id else [])
        facts = (message.id, message.user_id, content, message.size, int(message.cancel_on_disconnect), digest_of(content))
        more_facts = (message.trace, message.handler, message.run_scope, message.run_key)
        # If this process dies before it can say more, somebody looks all the same, for the message and for its readers.
        self._due.offer(group, self._lease)
        if message.cancel_on_disconnect:
            self._readers.expect(f"{group} {message.id}")
        bounds = (self._limits.depth_per_user, on_busy)
        last_facts = (self._lease if claim else "0", int(message.repeatable))
        said, *more = self._group.run("enqueue", keys, *facts, *bounds, *more_facts, *last_facts)
        match said:
            case "conflict":
                raise IdempotencyConflict
            case "expired":
                raise Expired(message_id=more[0])
            case "busy":
                raise Busy
            case "many":
                raise TooManyRequests(MANY_WAITING)
            case "again":
                self._due.offer(group)
                return Receipt(more[0], more[1])
            case "claimed":
                return Receipt(message.id, 0, claim_of(*more))
        with suppress(StorageUnavailable, ServerFull):  # It is kept, and somebody will look.
            if more[1]:
                self._due.offer(group)
        return Receipt(message.id, more[0])

    def claim(self, timeout: float) -> Claim | None:
        deadline = monotonic() + timeout
        while True:
            rung = self._due.rung()
            found = self._next()
            if isinstance(found, Claim):
                return found
            if monotonic() >= deadline:
                return None
            self._due.wait(rung, min(deadline - monotonic(), found))

    def _next(self) -> Claim | float:
        """A message, or the seconds until one may be there."""
        while True:
            taken = self._due.take()
            if isinstance(taken, float):
                return taken
            claim = self._look(*taken, self._lease)
            if claim is not None:
                return claim

    def _look(self, group: str, till: str, lease: str) -> Claim | None:
        said, *more = self._group.run("claim", [queue_key(group)], lease, CLAIMS_MOST, INTERRUPTED, STOPPED, *self._keep)
        match said:
            case "runs":
                self._due.settle(group, till, more[0])
                return None
            case "waits":
                self._due.offer(group)
                return None
            case "idle":
                tell_reaped(more[0])
                self._due.settle(group, till)
                return None
        reaped, *claimed = more
        tell_reaped(reaped)
        return claim_of(*claimed)

    def claim_next(self, after: Message, handler: str) -> Claim | None:
        claimed = self._group.run("claim_next", [queue_key(group_of(after))], self._lease, handler)
        return claim_of(*claimed) if claimed else None  # The end of `after` has put the group on the list of those due.

    def renew(self, claim: Claim) -> StopReason | None:
        return reason_of(self._write(claim, (), started=False))

    def commit(self, claim: Claim) -> bool:
        answer = self._group.run("commit", [queue_of(claim)], claim.message.id, claim.token)
        if answer == "lost":
            raise LeaseLost
        return bool(answer)

    def restart(self, claim: Claim) -> bool:
        answer = self._group.run("restart", [queue_of(claim)], claim.message.id, claim.token)
        if answer == "lost":
            raise LeaseLost
        return bool(answer)

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        if entries:
            self._write(claim, entries, started=started)

    def _write(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool) -> str:
        name = self._name(claim) if entries else ""
        about = (claim.message.id, claim.token, self._lease, name, int(started), self._limits.log_bytes)
        answer: str = self._group.run("write", [queue_of(claim)], *about, *flat(entries))
        if entries:
            self._writing.pop(claim_key(claim), None)
        if answer == "lost":
            raise LeaseLost
        if answer == "large":
            raise TooLarge(LONG_ANSWER)
        return answer

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        self._end(claim, self._finish(claim, entries, "forget" if forget else ""))

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        answer = self._finish(claim, entries, "conclude")
        self._writing.pop(claim_key(claim), None)
        if answer == "lost":
            raise LeaseLost

    def _finish(self, claim: Claim, entries: Sequence[LogEntry], mode: str) -> str | int:
        about = (claim.message.id, claim.token, self._name(claim), *self._keep, mode)
        answer: str | int = self._group.run("finish", [queue_of(claim)], *about, *flat(entries))
        return answer

    def release(self, claim: Claim) -> None:
        about = (claim.message.id, claim.token, INTERRUPTED, STOPPED, *self._keep)
        self._end(claim, self._group.run("release", [queue_of(claim)], *about))

    def _end(self, claim: Claim, answer: str | int) -> None:
        group = group_of(claim.message)
        if answer:
            self._due.offer(group)  # Also of a lost one: it may be this call's own doing, whose answer was lost.
        else:
            self._tidy(group)
        self._writing.pop(claim_key(claim), None)
        if answer == "lost":
            raise LeaseLost

    def _tidy(self, group: str) -> None:
        """Where nothing is left, there is nothing to look after."""
        self._look(group, self._due.put_off(group), lease="0")

    def _name(self, claim: Claim) -> str:
        """The same again until the write is known to be done: then repeating it does nothing."""
        name = self._writing.setdefault(claim_key(claim), secrets.token_hex(8))
        while len(self._writing) > WRITES_MOST:
            self._writing.pop(next(iter(self._writing)), None)
        return name

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        return self._logs.read(user_id, message_id, after)

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        return self._logs.locate(user_id, group, event_id)

    @contextmanager
    def subscribe(self, user_id: str, message_id: str, wake: Callable[[], None]) -> Iterator[None]:
        answer = f"{group_mark_of(message_id, user_id)} {message_id}"
        with self._readers.reading(answer), self._listener.hearing(f"chat:l:{message_id}", lambda _: wake()):
            yield

    def stop(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        self._stopped(group, message_id, self._group.run("stop", [queue_key(group)], message_id, user_id, STOPPED, *self._keep))

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        if not self._readers.has(f"{group} {message_id}"):
            self._cancel(group, message_id, user_id, self._readers.process)

    def _cancel(self, group: str, message_id: str, user_id: str = "", process: str = "") -> None:
        about = (message_id, user_id, process, STOPPED, *self._keep)
        self._stopped(group, message_id, self._group.run("cancel", [queue_key(group)], *about))

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        self._stopped(group, message_id, self._group.run("keep_unread", [queue_key(group)], message_id, user_id))
        self._readers.forget(f"{group} {message_id}")

    def _stopped(self, group: str, message_id: str, answer: str) -> None:
        match answer:
            case "unknown":
                raise NotFound
            case "expired":
                raise Expired(message_id=message_id)
            case "last":
                self._tidy(group)

    def on_stop(self, tell: Callable[[str, StopReason], None]) -> None:
        def hear(text: str) -> None:
            message_id, _, why = text.partition(" ")
            if message_id:
                tell(message_id, reason_of(why) or "stopped")

        self._listener.hear("chat:stop", hear)

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        return places_of(self._group.run("places", [queue_key(group_mark(user_id, group))]))

    def sweep(self) -> None:
        with suppress(ServerFull), map_errors():
            self._client.set(WORKER, "1", ex=WORKER_SECONDS)
        for answer in self._readers.unread():
            group, message_id = answer.split(" ", 1)
            with suppress(NotFound, Expired):  # One that was refused, or is long over.
                self._cancel(group, message_id)
            self._readers.forget(answer)

    def has_workers(self) -> bool:
        with map_errors():
            return bool(self._client.exists(WORKER))

    def counts(self) -> Counts:
        return self._due.counts()

    def waiting(self) -> int:
        groups = self._due.groups()
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.llen(queue_key(group))
            return sum(pipe.execute())
