"""The queue in Redis, shared by any number of processes, any of which may die.

A group's keys are only changed by Lua scripts (lua/group/; lua/group.lua documents the keys). All groups with waiting or
running messages are in one sorted set, `chat:due`, by when to check them: a worker claims the first due group, postpones it by
a lease, and then claims a message from the group's queue. If the worker dies in between, another one checks the group after the
lease. There is no separate reaper: a check after a lease's end finds the messages of a worker that died.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

from bff.broker import final_events
from bff.broker.queue.base import (
    REPLY_TOO_LONG,
    TOO_MANY_WAITING,
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
from bff.broker.queue.redis.keys import claim_key, digest_of, flatten, group_of, queue_key, queue_key_of
from bff.broker.queue.redis.logs import Logs
from bff.broker.queue.redis.presence import Presence
from bff.broker.queue.redis.replies import claim_of, positions_of, report_reaped, stop_reason_of
from bff.broker.queue.redis.schedule import Moment, Schedule
from bff.broker.queue.redis.subscriber import Subscriber
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, StorageUnavailable, TooLarge, TooManyRequests
from bff.ops import redis
from bff.ops.health import WriteProbe
from bff.ops.redis import Client, Scripts, keys_of, map_errors
from bff.upstream.message_ids import group_mark, group_mark_of

WORKER: Final = "chat:worker"
"""Exists while any worker sweeps."""
WORKER_SECONDS: Final = 5
LUA: Final = Path(__file__).parent / "lua"
MAX_CLAIMS: Final = 5
"""Claims of one message: one that kills its workers is not retried forever."""
MAX_WRITE_NAMES: Final = 10_000
"""Claims whose last write's name is remembered: those of workers that gave up are never removed otherwise."""
INTERRUPTED: Final = final_events.interrupted()[1]
STOPPED: Final = final_events.stopped()[1]


class RedisQueue:
    def __init__(self, client: Client, limits: Limits = Limits(), lease: float = 10.0) -> None:  # noqa: B008 - frozen
        """`lease`: seconds for which a claim is valid without being renewed."""
        self._client = client
        self._write_probe = WriteProbe(partial(redis.ping, client), partial(redis.check_writes, client))
        self._limits = limits
        self._lease = str(int(lease * 1_000_000))
        self._retention = (str(int(limits.retention * 1000)), str(limits.log_bytes))
        self._group = Scripts(client, LUA / "group", prelude=(LUA / "group.lua").read_text(encoding="utf-8"))
        self._logs = Logs(client, self._group)
        self._subscriber = Subscriber(client)
        self._schedule = Schedule(client, self._subscriber, self._lease)
        self._presence = Presence(client, limits.grace)
        self._write_names: dict[tuple[str, int], str] = {}
        """By claim, the name of a write of which it is not known whether it succeeded."""

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
        self._presence.close()
        self._subscriber.close()
        self._client.close()

    def enqueue(self, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool = False) -> Receipt:
        group = group_of(message)
        # If this process dies before the end of this method, the group is checked after a lease and the readers after a grace.
        self._schedule.schedule(group, self._lease)
        if message.cancel_on_disconnect:
            self._presence.expect(f"{group} {message.id}")
        outcome, *result = self._run_enqueue(group, message, client_message_id, on_busy, claim=claim)
        match outcome:
            case "conflict":
                raise IdempotencyConflict
            case "expired":
                raise Expired(message_id=result[0])
            case "busy":
                raise Busy
            case "full":
                raise TooManyRequests(TOO_MANY_WAITING)
            case "exists":
                self._schedule.schedule(group)
                return Receipt(result[0], result[1])
            case "claimed":
                return Receipt(message.id, 0, claim_of(*result))
        ahead, is_claimable = result
        with suppress(StorageUnavailable, ServerFull):  # The message is stored, and the group will be checked after a lease.
            if is_claimable:
                self._schedule.schedule(group)
        return Receipt(message.id, ahead)

    def _run_enqueue(
        self, group: str, message: Message, client_message_id: str | None, on_busy: str, *, claim: bool
    ) -> list[Any]:
        keys = [queue_key(group)] + ([f"{keys_of(group)}c:{digest_of(client_message_id)}"] if client_message_id else [])
        content = json.dumps(message.content, sort_keys=True)
        fields = (message.id, message.user_id, content, message.size, int(message.cancel_on_disconnect), digest_of(content))
        conditions = (self._limits.depth_per_user, on_busy)
        more_fields = (message.trace, message.handler, message.run_scope, message.run_key)
        lease = self._lease if claim else "0"
        arguments = (*fields, *conditions, *more_fields, lease, int(message.repeatable))
        result: list[Any] = self._group.run("enqueue", keys, *arguments)
        return result

    def claim(self, timeout: float) -> Claim | None:
        deadline = monotonic() + timeout
        while True:
            notifications = self._schedule.notifications()
            result = self._claim_next()
            if isinstance(result, Claim):
                return result
            if monotonic() >= deadline:
                return None
            self._schedule.wait(notifications, min(deadline - monotonic(), result))

    def _claim_next(self) -> Claim | float:
        """Returns a claim, or the seconds until there may be a message."""
        while True:
            due = self._schedule.claim_due()
            if isinstance(due, float):
                return due
            claim = self._check(*due, self._lease)
            if claim is not None:
                return claim

    def _check(self, group: str, moment: Moment, lease: str) -> Claim | None:
        """Claims the group's next message, or schedules the group's next check."""
        arguments = (lease, MAX_CLAIMS, INTERRUPTED, STOPPED, *self._retention)
        outcome, *result = self._group.run("claim", [queue_key(group)], *arguments)
        match outcome:
            case "running":
                self._schedule.complete(group, moment, result[0])
                return None
            case "waiting":
                self._schedule.schedule(group)
                return None
            case "idle":
                report_reaped(result[0])
                self._schedule.complete(group, moment)
                return None
        reaped, *claimed = result
        report_reaped(reaped)
        return claim_of(*claimed)

    def renew(self, claim: Claim) -> StopReason | None:
        return stop_reason_of(self._write(claim, (), started=False))

    def commit(self, claim: Claim) -> bool:
        return self._run_for_claim("commit", claim)

    def restart(self, claim: Claim) -> bool:
        return self._run_for_claim("restart", claim)

    def _run_for_claim(self, script: str, claim: Claim) -> bool:
        result = self._group.run(script, [queue_key_of(claim)], claim.message.id, claim.token)
        if result == "lost":
            raise LeaseLost
        return bool(result)

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        if entries:
            self._write(claim, entries, started=started)

    def _write(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool) -> str:
        name = self._write_name(claim) if entries else ""
        arguments = (claim.message.id, claim.token, self._lease, name, int(started), self._limits.log_bytes)
        result: str = self._group.run("write", [queue_key_of(claim)], *arguments, *flatten(entries))
        if entries:
            self._write_names.pop(claim_key(claim), None)
        if result == "lost":
            raise LeaseLost
        if result == "large":
            raise TooLarge(REPLY_TOO_LONG)
        return result

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        self._end_run(claim, self._finish(claim, entries, "forget" if forget else ""))

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        result = self._finish(claim, entries, "conclude")
        self._write_names.pop(claim_key(claim), None)
        if result == "lost":
            raise LeaseLost

    def _finish(self, claim: Claim, entries: Sequence[LogEntry], mode: str) -> str | int:
        arguments = (claim.message.id, claim.token, self._write_name(claim), *self._retention, mode)
        result: str | int = self._group.run("finish", [queue_key_of(claim)], *arguments, *flatten(entries))
        return result

    def release(self, claim: Claim) -> None:
        arguments = (claim.message.id, claim.token, INTERRUPTED, STOPPED, *self._retention)
        self._end_run(claim, self._group.run("release", [queue_key_of(claim)], *arguments))

    def _end_run(self, claim: Claim, result: str | int) -> None:
        """`result`: "lost", or the number of waiting messages."""
        group = group_of(claim.message)
        if result:
            self._schedule.schedule(group)  # Also if lost: an earlier call may have succeeded whose result was not received.
        else:
            self._unschedule_if_idle(group)
        self._write_names.pop(claim_key(claim), None)
        if result == "lost":
            raise LeaseLost

    def _unschedule_if_idle(self, group: str) -> None:
        self._check(group, self._schedule.postpone(group), lease="0")

    def _write_name(self, claim: Claim) -> str:
        """Returns the same name until a write is known to have succeeded, so that repeating it has no effect."""
        name = self._write_names.setdefault(claim_key(claim), secrets.token_hex(8))
        while len(self._write_names) > MAX_WRITE_NAMES:
            self._write_names.pop(next(iter(self._write_names)), None)
        return name

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        return self._logs.read(user_id, message_id, after)

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        return self._logs.locate(user_id, group, event_id)

    @contextmanager
    def subscribe(self, user_id: str, message_id: str, wake: Callable[[], None]) -> Iterator[None]:
        member = f"{group_mark_of(message_id, user_id)} {message_id}"
        channel = f"chat:l:{message_id}"
        with self._presence.reading(member), self._subscriber.subscription(channel, lambda _: wake()):
            yield

    def stop(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        result = self._group.run("stop", [queue_key(group)], message_id, user_id, STOPPED, *self._retention)
        self._handle_stop(group, message_id, result)

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        if not self._presence.has_readers(f"{group} {message_id}"):
            self._cancel(group, message_id, user_id, self._presence.process)

    def _cancel(self, group: str, message_id: str, user_id: str = "", process: str = "") -> None:
        arguments = (message_id, user_id, process, STOPPED, *self._retention)
        self._handle_stop(group, message_id, self._group.run("cancel", [queue_key(group)], *arguments))

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        result = self._group.run("continue_without_readers", [queue_key(group)], message_id, user_id)
        self._handle_stop(group, message_id, result)
        self._presence.forget(f"{group} {message_id}")

    def _handle_stop(self, group: str, message_id: str, result: str) -> None:
        match result:
            case "unknown":
                raise NotFound
            case "expired":
                raise Expired(message_id=message_id)
            case "last":
                self._unschedule_if_idle(group)

    def on_stop(self, callback: Callable[[str, StopReason], None]) -> None:
        def receive(text: str) -> None:
            message_id, _, reason = text.partition(" ")
            if message_id:
                callback(message_id, stop_reason_of(reason) or "stopped")

        self._subscriber.subscribe("chat:stop", receive)

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        return positions_of(self._group.run("positions", [queue_key(group_mark(user_id, group))]))

    def sweep(self) -> None:
        with suppress(ServerFull), map_errors():
            self._client.set(WORKER, "1", ex=WORKER_SECONDS)
        for member in self._presence.unread():
            group, message_id = member.split(" ", 1)
            with suppress(NotFound, Expired):  # Its enqueueing was refused, or its log was removed.
                self._cancel(group, message_id)
            self._presence.forget(member)

    def has_workers(self) -> bool:
        with map_errors():
            return bool(self._client.exists(WORKER))

    def counts(self) -> Counts:
        return self._schedule.counts()

    def waiting(self) -> int:
        groups = self._schedule.groups()
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.llen(queue_key(group))
            return sum(pipe.execute())
