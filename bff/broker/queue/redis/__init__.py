"""The queue in Redis, shared by any number of processes, any of which may die.

A group's keys are only changed by Lua scripts (lua/group/; lua/group.lua documents the keys). All groups with waiting or
running messages are in a schedule (schedule.py), by when to check them: a worker claims the first due group, postpones it by
a lease, and then claims a message from the group's queue. If the worker dies in between, another one checks the group after the
lease. There is no separate reaper: a check after a lease's end finds the messages of a worker that died.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from time import monotonic
from typing import Final

from bff.broker.queue.base import (
    TOO_MANY_WAITING,
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
from bff.broker.queue.redis.claims import Claims
from bff.broker.queue.redis.cluster_subscribers import subscribers_of
from bff.broker.queue.redis.deliveries import RedisDeliveries
from bff.broker.queue.redis.group import GroupScripts
from bff.broker.queue.redis.keys import group_of
from bff.broker.queue.redis.logs import Logs
from bff.broker.queue.redis.presence import Presence
from bff.broker.queue.redis.repair import Repair
from bff.broker.queue.redis.replies import positions_of, stop_reason_of
from bff.broker.queue.redis.runs import Runs
from bff.broker.queue.redis.schedule import Schedule
from bff.broker.queue.redis.subscriber import subscription
from bff.broker.queue.redis.writes import Writes
from bff.errors import Busy, Expired, IdempotencyConflict, NotFound, ServerFull, StorageUnavailable, TooManyRequests
from bff.ops import redis
from bff.ops.health import WriteProbe
from bff.ops.redis import Client, is_replicated, is_sharded, map_errors
from bff.ops.redis_check import check_use
from bff.ops.redis_keys import DEFAULT_PREFIX, Keys
from bff.upstream.message_ids import group_mark, group_mark_of

WORKER_SECONDS: Final = 5
DELIVERY_LEASE_SECONDS: Final = 25.0


class RedisQueue:
    def __init__(
        self,
        client: Client,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        lease: float = 10.0,
        *,
        prefix: str = DEFAULT_PREFIX,
        deployment: str = "",
        delivery_lease: float = DELIVERY_LEASE_SECONDS,
    ) -> None:
        """`lease`: seconds for which a claim is valid without being renewed. `deployment`: see bff/ops/redis_neighbours.py.

        `delivery_lease`: seconds for which the claim of a webhook delivery is valid. It is not renewed.
        """
        self._client = client
        self._keys = Keys(prefix)
        self._write_probe = WriteProbe(partial(redis.ping, client), partial(check_use, client, self._keys))
        self._lease = str(int(lease * 1_000_000))
        self._group = GroupScripts(client, limits, self._lease, self._keys)
        self._logs = Logs(client, self._group)
        self._subscriber = subscribers_of(client)
        self._schedule = Schedule(client, self._subscriber, self._lease, self._keys)
        self._presence = Presence(client, limits.grace, self._keys)
        self.deliveries = RedisDeliveries(client, self._subscriber, self._keys, delivery_lease)
        self._repair = Repair(client, self._schedule, self._keys, self.deliveries.schedule)
        self._writes = Writes(keeps_entries=is_replicated(client))
        self._claims = Claims(self._group, self._schedule, lease, self.deliveries.notify)
        unschedule = self._claims.unschedule_if_idle
        self._runs = Runs(self._group, self._schedule, self._writes, unschedule, self.deliveries.notify)
        self._deployment = deployment or "1"
        self._worker_key = self._keys.name("worker")
        """Exists while any worker sweeps."""

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
        outcome, *result = self._group.enqueue(message, client_message_id, on_busy, claim=claim)
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
                return Receipt(message.id, 0, result[0])
        ahead, is_claimable = result
        with suppress(StorageUnavailable, ServerFull):  # The message is stored, and the group will be checked after a lease.
            if is_claimable:
                self._schedule.schedule(group)
        return Receipt(message.id, ahead)

    def claim(self, timeout: float) -> Claim | None:
        deadline = monotonic() + timeout
        while True:
            notifications = self._schedule.notifications()
            self._schedule.look(at_once=timeout <= 0)
            result = self._claims.next()
            if isinstance(result, Claim):
                return result
            if monotonic() >= deadline:
                return None
            self._schedule.wait(notifications, min(deadline - monotonic(), result))

    def claim_for(self, handler: str) -> Claim | None:
        return self._claims.next_for(handler)

    def claim_next(self, after: Message, handler: str) -> Claim | None:
        return self._claims.next_after(after, handler)

    def renew(self, claim: Claim) -> StopReason | None:
        return self._runs.renew(claim)

    def commit(self, claim: Claim) -> bool:
        return self._runs.commit(claim)

    def restart(self, claim: Claim) -> bool:
        return self._runs.restart(claim)

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        self._runs.append(claim, entries, started=started)

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        self._runs.finish(claim, entries, forget=forget)

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        self._runs.conclude(claim, entries)

    def release(self, claim: Claim) -> None:
        self._runs.release(claim)

    def read(self, user_id: str, message_id: str, after: str) -> Page:
        return self._logs.read(user_id, message_id, after)

    def locate(self, user_id: str, group: str, event_id: str) -> str | None:
        return self._logs.locate(user_id, group, event_id)

    def find(self, user_id: str, group: str, client_message_id: str) -> str | None:
        return self._logs.find(user_id, group, client_message_id)

    @contextmanager
    def subscribe(
        self, user_id: str, message_id: str, wake: Callable[[], None], *, cancel_on_disconnect: bool = False
    ) -> Iterator[None]:
        group, sharded = group_mark_of(message_id, user_id), is_sharded(self._client)
        channel = self._keys.tagged(group, f"l:{message_id}") if sharded else self._keys.name(f"l:{message_id}")
        with (
            self._presence.reading(f"{group} {message_id}", publish=cancel_on_disconnect),
            subscription(self._subscriber, channel, lambda _: wake(), sharded=sharded),
        ):
            yield

    def stop(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        self._handle_stop(group, message_id, self._group.stop(group, message_id, user_id))

    def cancel_if_no_readers(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        if not self._presence.has_readers(f"{group} {message_id}"):
            result = self._group.cancel(group, message_id, user_id, self._presence.process)
            self._handle_stop(group, message_id, result)

    def continue_without_readers(self, user_id: str, message_id: str) -> None:
        group = group_mark_of(message_id, user_id)
        self._handle_stop(group, message_id, self._group.continue_without_readers(group, message_id, user_id))
        self._presence.forget(f"{group} {message_id}")

    def _handle_stop(self, group: str, message_id: str, result: str) -> None:
        match result:
            case "unknown":
                raise NotFound
            case "expired":
                raise Expired(message_id=message_id)
            case "waiting":
                self.deliveries.notify_if_any(group)
            case "last":
                self._claims.unschedule_if_idle(group)

    def on_stop(self, callback: Callable[[str, StopReason], None]) -> None:
        def receive(text: str) -> None:
            message_id, _, reason = text.partition(" ")
            if message_id:
                callback(message_id, stop_reason_of(reason) or "stopped")

        self._subscriber.subscribe(self._keys.name("stop"), receive)

    def positions(self, user_id: str, group: str = "") -> list[QueuePosition]:
        return positions_of(self._group.positions(group_mark(user_id, group)))

    def sweep(self) -> None:
        with suppress(ServerFull), map_errors():
            self._client.set(self._worker_key, self._deployment, ex=WORKER_SECONDS)
        for member in self._presence.unread():
            group, message_id = member.split(" ", 1)
            with suppress(NotFound, Expired):  # Its enqueueing was refused, or its log was removed.
                self._handle_stop(group, message_id, self._group.cancel(group, message_id))
            self._presence.forget(member)
        self._repair.run_if_due()

    def has_workers(self) -> bool:
        with map_errors():
            return bool(self._client.exists(self._worker_key))

    def counts(self) -> Counts:
        return self._schedule.counts()

    def waiting(self) -> int:
        return self._schedule.total("llen", "q")
