"""Which groups have to be checked, and when: sorted sets, and notifications of groups to be checked at once.

The schedule has PARTS parts, so that the nodes of a cluster share it. A process remembers when the first group of each part is
due: mostly it asks the one part of which it was notified.
"""

import threading
from collections.abc import Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

from bff.broker.queue.base import Counts
from bff.broker.queue.redis.keys import PARTS, part_of
from bff.broker.queue.redis.notifier import Notifier
from bff.broker.queue.redis.subscriber import Subscribers
from bff.errors import StorageUnavailable
from bff.ops.redis import Client, is_cluster, is_sharded, map_errors
from bff.ops.redis_keys import Keys
from bff.ops.redis_scripts import Scripts

LUA: Final = Path(__file__).parent / "lua"
MIN_WAIT_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 1.0
MAX_GROUPS: Final = 1000
"""Listed by `groups`: a few milliseconds' work."""

Moment = str
"""µs since 1970, as formatted by Redis."""


class Schedule:
    """Each method raises StorageUnavailable; `schedule` also ServerFull."""

    def __init__(
        self,
        client: Client,
        subscribers: Subscribers,
        lease: str,
        keys: Keys,
        name: str = "due",
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`lease`: µs for which no other worker checks a group that was claimed. `name`: of the sorted sets' keys.

        `look_seconds`: for so long a process believes what it remembers: a notification can be lost, and a dead process sends
        none.
        """
        self._client = client
        self._subscribers = subscribers
        self._lease = lease
        self._keys = keys
        self._name = name
        self._look_seconds = look_seconds
        self._scripts = Scripts(client, LUA / "schedule", LUA / "time.lua", LUA / "schedule.lua")
        self._notifier = Notifier()
        self._subscribe_lock = threading.Lock()
        self._subscribed = False
        self._firsts = dict.fromkeys(range(PARTS), inf)
        """By part, when its first group is due, as far as known: µs since 1970 by Redis's clock."""
        self._clock_offset = 0.0
        """Redis's clock minus `monotonic`, in µs."""
        self._looked_at = -inf

    def key(self, part: int) -> str:
        return self._keys.tagged(str(part), self._name)

    def schedule(self, group: str, delay: str = "0") -> None:
        """Has the group checked after `delay` µs. With 0, waiting workers are notified."""
        self._scripts.run("schedule", [self.key(part_of(group))], group, delay)

    def schedule_missing(self, group: str) -> None:
        """Has the group checked now if it is not scheduled."""
        self._scripts.run("schedule_missing", [self.key(part_of(group))], group)

    def look(self, *, at_once: bool) -> None:
        """Asks for the first group of each part, if that was done long ago or `at_once`."""
        if at_once or self._notifier.pop_all() or monotonic() >= self._looked_at + self._look_seconds:
            self._looked_at = monotonic()
            if is_cluster(self._client):
                self._look_at_each()
            else:
                self._look_at_all()

    def _look_at_all(self) -> None:
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrange(self._keys.name(self._name), 0, MAX_GROUPS - 1)
            for part in range(PARTS):
                pipe.zrange(self.key(part), 0, 0, withscores=True)
            (seconds, microseconds), unmoved, *firsts = pipe.execute()
        self._set_clock(seconds * 1_000_000 + microseconds)
        self._firsts = {part: first[0][1] if first else inf for part, first in enumerate(firsts)}
        for group in unmoved:
            self._move(group)

    def _look_at_each(self) -> None:
        """In a cluster. A part that cannot be asked is asked again by `claim_due`."""
        for part in range(PARTS):
            try:
                first, now = self._scripts.run("first", [self.key(part)])
            except StorageUnavailable:
                self._firsts[part] = self._now()
            else:
                self._set_clock(float(now))
                self._firsts[part] = float(first or inf)

    def _move(self, group: str) -> None:
        """Moves a group that an earlier version has scheduled, whose schedule had one part."""
        self.schedule(group)
        self._firsts[part_of(group)] = self._now()
        with map_errors():
            self._client.zrem(self._keys.name(self._name), group)

    def claim_due(self) -> tuple[str, Moment] | float:
        """Claims the first due group until the returned moment, a lease ahead; or returns the seconds until one may be due.

        In a cluster it raises StorageUnavailable only if no part that can be asked has a due group.
        """
        unavailable = ""
        while True:
            self._add_notified()
            part = min(self._firsts, key=self._firsts.__getitem__)
            seconds = (self._firsts[part] - self._now()) / 1_000_000
            if seconds > 0 and unavailable:
                raise StorageUnavailable(detail=unavailable)
            if seconds > 0:
                return max(seconds, MIN_WAIT_SECONDS)
            try:
                group, moment = self._claim_due_of(part)
            except StorageUnavailable as error:
                if not is_cluster(self._client):
                    raise
                unavailable, self._firsts[part] = error.detail, self._now() + 1_000_000 * LOOK_SECONDS
                continue
            if group:
                return group, moment

    def _claim_due_of(self, part: int) -> tuple[str, Moment]:
        group, moment, first = self._scripts.run("claim_due", [self.key(part)], self._lease)
        self._set_clock(float(moment) - (float(self._lease) if group else 0))
        self._firsts[part] = float(first or inf)
        return group, moment

    def postpone(self, group: str) -> Moment:
        """Claims the group, whether it is due or not, until the returned moment."""
        moment: Moment = self._scripts.run("claim_due", [self.key(part_of(group))], self._lease, group)[1]
        return moment

    def complete(self, group: str, moment: Moment, next_check: Moment = "") -> None:
        """Ends the check of a group claimed until `moment`: the next one is at `next_check`, or never.

        Does nothing if the group was scheduled in the meantime.
        """
        part = part_of(group)
        self._scripts.run("complete", [self.key(part)], group, moment, next_check)
        self._firsts[part] = min(self._firsts[part], float(next_check or inf))

    def notifications(self) -> int:
        """Returns the number of notifications so far, for `wait`. The first call subscribes to them."""
        with self._subscribe_lock:
            if not self._subscribed:
                self._subscribed = True
                self._subscribe()
        return self._notifier.count

    def _subscribe(self) -> None:
        if is_sharded(self._client):
            for part in range(PARTS):
                channel = self._keys.tagged(str(part), "work")
                self._subscribers.subscribe(channel, lambda _, part=part: self._notifier.notify(part), sharded=True)  # type: ignore[misc]
        else:
            self._subscribers.subscribe(self._keys.name("work"), lambda text: self._notifier.notify(_part_of(text)))

    def schedule_quietly(self, group: str) -> None:
        """Has the group checked. Only workers of this process are notified."""
        self.schedule(group, "1")
        self._notifier.notify(part_of(group))

    def own_notifications(self) -> int:
        """As `notifications`, of this process only."""
        return self._notifier.count

    def wait(self, since: int, seconds: float) -> None:
        """Waits for a notification after the first `since` ones."""
        self._notifier.wait(since, seconds)

    def counts(self) -> Counts:
        """Counts groups that are not due as running: they have a running message, or are being checked."""
        counts = self._scripts.run_for_each("counts", [self.key(part) for part in range(PARTS)])
        return Counts(sum(queues for queues, _ in counts), sum(running for _, running in counts))

    def groups(self, most: int = MAX_GROUPS) -> Iterator[Any]:
        """The first groups of each part, in the order in which they are due."""
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            for part in range(PARTS):
                pipe.zrange(self.key(part), 0, most // PARTS)
            parts = pipe.execute()
        for groups in parts:
            yield from groups

    def total(self, command: Literal["llen", "zcard"], name: str) -> int:
        """The sum of the sizes that `command` returns for the keys `name` of `groups`."""
        keys = [self._keys.tagged(group, name) for group in self.groups()]
        with map_errors(), self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                getattr(pipe, command)(key)
            return sum(pipe.execute())

    def _add_notified(self) -> None:
        for part in self._notifier.pop_parts():
            self._firsts[part] = min(self._firsts[part], self._now())

    def _now(self) -> float:
        return monotonic() * 1_000_000 + self._clock_offset

    def _set_clock(self, now: float) -> None:
        self._clock_offset = now - monotonic() * 1_000_000


def _part_of(text: str) -> int | None:
    """From a notification; None if it is of an earlier version, or stands for any that were missed."""
    return int(text) if text.isdecimal() and int(text) < PARTS else None
