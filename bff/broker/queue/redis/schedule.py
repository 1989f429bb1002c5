"""Which group has something to be looked after, by when: one sorted set, and the bell that rings when one is due at once."""

import threading
from pathlib import Path
from typing import Any, Final

from bff.broker.queue.base import Counts
from bff.broker.queue.redis.subscriber import Subscriber
from bff.ops.redis import Client, Scripts, map_errors

DUE: Final = "chat:due"
SOON_SECONDS: Final = 0.01
MOST: Final = 1000
"""Groups that are told of: a few milliseconds' work."""

Moment = str
"""µs since 1970, as Redis wrote it."""


class Schedule:
    """Each verb raises Away; `offer` ServerFull, too."""

    def __init__(self, client: Client, listener: Subscriber, lease: str) -> None:
        """`lease`: µs for which nobody else looks after whom somebody looks after."""
        self._client = client
        self._listener = listener
        self._lease = lease
        self._scripts = Scripts(client, Path(__file__).parent / "lua" / "due")
        self._bell = Notifier()
        self._starting = threading.Lock()
        self._heard = False

    def offer(self, group: str, later: str = "0") -> None:
        """`later`: in so many µs. At once, whoever waits is woken."""
        self._scripts.run("offer", [DUE], group, later)

    def take(self) -> tuple[str, Moment] | float:
        """The first one who is due, put off by a lease until that moment; or the seconds until somebody may be."""
        group, till = self._scripts.run("take", [DUE], self._lease)
        if group:
            return group, till
        return float("inf") if till < 0 else max(till / 1_000_000, SOON_SECONDS)

    def put_off(self, group: str) -> Moment:
        """By a lease, whether due or not."""
        till: Moment = self._scripts.run("take", [DUE], self._lease, group)[1]
        return till

    def settle(self, group: str, till: Moment, again: Moment = "") -> None:
        """Of one who was put off until `till`, when to look `again`: never, unless something new came in between."""
        self._scripts.run("settle", [DUE], group, till, again)

    def rung(self) -> int:
        """How often the bell has rung; from the first time on it can be heard."""
        with self._starting:
            if not self._heard:
                self._heard = True
                self._listener.hear("chat:work", lambda _: self._bell.ring())
        return self._bell.rung

    def wait(self, since: int, seconds: float) -> None:
        """Until it has rung since it had rung so often."""
        self._bell.wait(since, seconds)

    def counts(self) -> Counts:
        """Whoever was put off has something that runs, or is looked after just now."""
        with map_errors(), self._client.pipeline() as pipe:
            seconds, microseconds = self._client.time()
            pipe.zcard(DUE)
            pipe.zcount(DUE, f"({seconds * 1_000_000 + microseconds}", "+inf")
            queues, running = pipe.execute()
        return Counts(queues, running)

    def groups(self) -> list[Any]:
        with map_errors():
            return list(self._client.zrange(DUE, 0, MOST - 1))


class Notifier:
    """Rung from anywhere; who noted how often it had rung does not miss the next time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.rung = 0

    def ring(self) -> None:
        with self._condition:
            self.rung += 1
            self._condition.notify_all()

    def wait(self, since: int, seconds: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.rung != since, seconds)
