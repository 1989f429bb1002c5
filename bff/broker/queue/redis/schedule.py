"""Which groups have to be checked, and when: a sorted set, and notifications of groups to be checked at once."""

import threading
from pathlib import Path
from typing import Any, Final

from bff.broker.queue.base import Counts
from bff.broker.queue.redis.subscriber import Subscriber
from bff.ops.redis import Client, Scripts, map_errors

DUE: Final = "chat:due"
MIN_WAIT_SECONDS: Final = 0.01
MAX_GROUPS: Final = 1000
"""Listed by `groups`: a few milliseconds' work."""

Moment = str
"""µs since 1970, as formatted by Redis."""


class Schedule:
    """Each method raises StorageUnavailable; `schedule` also ServerFull."""

    def __init__(self, client: Client, subscriber: Subscriber, lease: str) -> None:
        """`lease`: µs for which no other worker checks a group that was claimed."""
        self._client = client
        self._subscriber = subscriber
        self._lease = lease
        self._scripts = Scripts(client, Path(__file__).parent / "lua" / "schedule")
        self._notifier = Notifier()
        self._subscribe_lock = threading.Lock()
        self._subscribed = False

    def schedule(self, group: str, delay: str = "0") -> None:
        """Has the group checked after `delay` µs. With 0, waiting workers are notified."""
        self._scripts.run("schedule", [DUE], group, delay)

    def claim_due(self) -> tuple[str, Moment] | float:
        """Claims the first due group until the returned moment, a lease ahead; or returns the seconds until one may be due."""
        group, value = self._scripts.run("claim_due", [DUE], self._lease)
        if group:
            return group, value
        return float("inf") if value < 0 else max(value / 1_000_000, MIN_WAIT_SECONDS)

    def postpone(self, group: str) -> Moment:
        """Claims the group, whether it is due or not, until the returned moment."""
        moment: Moment = self._scripts.run("claim_due", [DUE], self._lease, group)[1]
        return moment

    def complete(self, group: str, moment: Moment, next_check: Moment = "") -> None:
        """Ends the check of a group claimed until `moment`: the next one is at `next_check`, or never.

        Does nothing if the group was scheduled in the meantime.
        """
        self._scripts.run("complete", [DUE], group, moment, next_check)

    def notifications(self) -> int:
        """Returns the number of notifications so far, for `wait`. The first call subscribes to them."""
        with self._subscribe_lock:
            if not self._subscribed:
                self._subscribed = True
                self._subscriber.subscribe("chat:work", lambda _: self._notifier.notify())
        return self._notifier.count

    def wait(self, since: int, seconds: float) -> None:
        """Waits for a notification after the first `since` ones."""
        self._notifier.wait(since, seconds)

    def counts(self) -> Counts:
        """Counts groups that are not due as running: they have a running message, or are being checked."""
        with map_errors(), self._client.pipeline() as pipe:
            seconds, microseconds = self._client.time()
            pipe.zcard(DUE)
            pipe.zcount(DUE, f"({seconds * 1_000_000 + microseconds}", "+inf")
            queues, running = pipe.execute()
        return Counts(queues, running)

    def groups(self, most: int = MAX_GROUPS) -> list[Any]:
        """The first groups in the order in which they are due."""
        with map_errors():
            return list(self._client.zrange(DUE, 0, most - 1))


class Notifier:
    """Counts notifications, so that a caller who has read the count cannot miss the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def notify(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, since: int, seconds: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.count != since, seconds)
