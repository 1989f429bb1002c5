"""What a worker does with its claim in Redis: it renews the lease, writes the log, and ends the run."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from bff.broker.queue.base import REPLY_TOO_LONG, Claim, LeaseLost, LogEntry, StopReason
from bff.broker.queue.redis.group import GroupScripts
from bff.broker.queue.redis.keys import group_of
from bff.broker.queue.redis.replies import stop_reason_of
from bff.broker.queue.redis.schedule import Schedule
from bff.broker.queue.redis.writes import Write, Writes
from bff.errors import ServerFull, StorageUnavailable, TooLarge

log = logging.getLogger(__name__)


class Runs:
    def __init__(
        self,
        group: GroupScripts,
        schedule: Schedule,
        writes: Writes,
        unschedule_if_idle: Callable[[str], None],
        on_deliveries: Callable[[str], None],
    ) -> None:
        """`on_deliveries` is called with a group whose ended message may have webhook deliveries."""
        self._group = group
        self._schedule = schedule
        self._writes = writes
        self._unschedule_if_idle = unschedule_if_idle
        self._on_deliveries = on_deliveries

    def renew(self, claim: Claim) -> StopReason | None:
        return stop_reason_of(self._group.renew(claim))

    def commit(self, claim: Claim) -> bool:
        return self._group.commit(claim)

    def restart(self, claim: Claim) -> bool:
        with self._writes.write(claim, None) as write:
            return self._group.restart(claim, write)

    def append(self, claim: Claim, entries: Sequence[LogEntry], *, started: bool = True) -> None:
        if not entries:
            return
        with self._writes.write(claim, entries, started=started) as write:
            result = self._without_gap(claim, partial(self._group.write, claim, entries, write, started=started))
            if result == "large":
                raise TooLarge(REPLY_TOO_LONG)

    def finish(self, claim: Claim, entries: Sequence[LogEntry], *, forget: bool = False) -> None:
        with self._writes.write(claim, entries, last=True) as write:
            finish = partial(self._group.finish, claim, entries, write, "forget" if forget else "")
            self._end_run(claim, partial(self._without_gap, claim, finish))

    def conclude(self, claim: Claim, entries: Sequence[LogEntry]) -> None:
        with self._writes.write(claim, None) as write:
            self._without_gap(claim, partial(self._group.finish, claim, entries, write, "conclude"))
        self._schedule_deliveries(claim)

    def _without_gap(self, claim: Claim, write: Callable[[], Any]) -> Any:
        """Calls `write`, again if a fail-over has lost earlier writes of the claim, which are written once more before."""
        result = write()
        if not (isinstance(result, str) and result.startswith("gap ")):
            return result
        last_known = result.removeprefix("gap ")
        lost = self._writes.since(claim, last_known)
        log.warning("%d writes of message %s were lost in a fail-over and are repeated", len(lost), claim.message.id)
        entries = [entry for written in lost for entry in written.entries]
        started = any(written.started for written in lost)
        self._group.write(claim, entries, Write(lost[-1].name, last_known), started=started)
        return write()

    def release(self, claim: Claim) -> None:
        self._end_run(claim, partial(self._group.release, claim))
        self._writes.forget(claim)

    def _end_run(self, claim: Claim, end: Callable[[], int]) -> None:
        """`end` returns the number of waiting messages."""
        group = group_of(claim.message)
        try:
            waiting = end()
        except LeaseLost:
            self._schedule.schedule(group)  # An earlier call may have succeeded whose result was not received.
            self._writes.forget(claim)
            raise
        if waiting:
            self._schedule_deliveries(claim)
            self._schedule.schedule(group)
        else:
            self._unschedule_if_idle(group)  # This schedules its deliveries, too.

    def _schedule_deliveries(self, claim: Claim) -> None:
        if claim.message.webhook:
            with suppress(StorageUnavailable, ServerFull):  # The group's next check does it.
                self._on_deliveries(group_of(claim.message))
