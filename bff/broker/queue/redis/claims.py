"""Claims messages for a worker.

A claim whose call failed may have succeeded: its message would wait for the end of the lease. So the call is repeated.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from time import monotonic
from typing import Final, NamedTuple

from bff.broker.queue.base import Claim, Message
from bff.broker.queue.redis.group import GroupScripts, new_nonce
from bff.broker.queue.redis.keys import group_of
from bff.broker.queue.redis.replies import report_reaped
from bff.broker.queue.redis.schedule import Moment, Schedule
from bff.errors import ServerFull, StorageUnavailable

MAX_CLAIMABLE: Final = 100
"""Groups in which `next_for` looks, with a call for each."""
REPEAT_SECONDS: Final = 1.0
"""Between two calls for a claim that may have succeeded."""


class _Unknown(NamedTuple):
    moment: Moment
    nonce: str
    repeat_at: float
    expires_at: float


class Claims:
    """Every method raises StorageUnavailable; some raise ServerFull. One thread calls `next`."""

    def __init__(self, group: GroupScripts, schedule: Schedule, lease: float, on_deliveries: Callable[[str], None]) -> None:
        """`lease`: seconds. `on_deliveries` is called with each checked group that has webhook deliveries.

        So they are sent even if the process that has ended their messages died before it could schedule them: a group is
        checked after each end of a message, if necessary by another process.
        """
        self._group = group
        self._schedule = schedule
        self._lease = lease
        self._on_deliveries = on_deliveries
        self._unknown: dict[str, _Unknown] = {}
        """By group, the claims that may have succeeded, for as long as their leases."""

    def next(self) -> Claim | float:
        """Returns a claim, or the seconds until there may be a message."""
        for group, unknown in self._unknown_claims():
            with suppress(StorageUnavailable):  # Another node of a cluster may be available.
                if claim := self._claim(group, unknown.moment, unknown.nonce):
                    return claim
        while True:
            due = self._schedule.claim_due()
            if isinstance(due, float):
                return due
            if claim := self._claim(*due, new_nonce()):
                return claim

    def _unknown_claims(self) -> Iterator[tuple[str, _Unknown]]:
        """Those to be repeated now."""
        now = monotonic()
        for group, unknown in [*self._unknown.items()]:
            if now >= unknown.expires_at:
                del self._unknown[group]
            elif now >= unknown.repeat_at:
                self._unknown[group] = unknown._replace(repeat_at=now + REPEAT_SECONDS)
                yield group, unknown

    def _claim(self, group: str, moment: Moment, nonce: str) -> Claim | None:
        """Claims the group's next message, or schedules the group's next check."""
        try:
            claim = self._check(group, moment, nonce)
        except StorageUnavailable:
            now = monotonic()
            self._unknown.setdefault(group, _Unknown(moment, nonce, now + REPEAT_SECONDS, now + self._lease))
            raise
        self._unknown.pop(group, None)
        return claim

    def _check(self, group: str, moment: Moment, nonce: str) -> Claim | None:
        """`nonce`: "" to claim nothing."""
        outcome, has_deliveries, *result = self._group.claim(group, nonce)
        if has_deliveries:
            # A claim must not be lost; the group's next check does it. An idle group has no next one: it is checked again.
            with suppress(StorageUnavailable, ServerFull) if outcome == "claimed" else nullcontext():
                self._on_deliveries(group)
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
        reaped, claim = result
        report_reaped(reaped)
        return claim  # type: ignore[no-any-return]

    def unschedule_if_idle(self, group: str) -> None:
        self._check(group, self._schedule.postpone(group), "")

    def next_for(self, handler: str) -> Claim | None:
        for group in self._schedule.groups(MAX_CLAIMABLE):
            if claim := self._group.claim_next(group, handler):
                with suppress(StorageUnavailable, ServerFull):  # Then the group remains due, and is checked once more.
                    self._schedule.postpone(group)
                return claim
        return None

    def next_after(self, message: Message, handler: str) -> Claim | None:
        """Of the same group, which was scheduled when `message` finished."""
        return self._group.claim_next(group_of(message), handler)
