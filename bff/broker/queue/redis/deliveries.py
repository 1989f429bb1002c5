"""Webhook deliveries in Redis: the scripts in lua/webhooks/, and a schedule of the groups that have any.

A group's deliveries are in its slot, so that the script that ends a message can store them. When to check a group is in a
schedule, as for its messages (schedule.py). A delivery whose group is not scheduled, because a process died in between, is
found at the group's next check as a queue (claims.py), or by the repair after a fail-over (repair.py).
"""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final

from bff.broker.queue.deliveries import FAILED_SECONDS, MAX_LISTED, Delivery, DeliveryEntry
from bff.broker.queue.redis.keys import GroupKeys
from bff.broker.queue.redis.schedule import Schedule
from bff.broker.queue.redis.subscriber import Subscribers
from bff.ops.redis import Client, map_errors
from bff.ops.redis_keys import Keys
from bff.ops.redis_scripts import Scripts

LUA: Final = Path(__file__).parent / "lua"
LOOK_SECONDS: Final = 5.0
"""Until the deliveries that another process has stored, and not sent, are noticed."""
GROUP_CHARACTERS: Final = 32
"""Of a delivery's id: the group's hash."""
MAX_DUE: Final = 1000
"""Due deliveries of a group to look at, of which most may be in lanes that are claimed: a millisecond's work."""


class RedisDeliveries:
    def __init__(self, client: Client, subscribers: Subscribers, keys: Keys, lease: float) -> None:
        """`lease`: seconds."""
        self._client = client
        self._keys = keys
        self._lease = str(int(lease * 1_000_000))
        self._scripts = Scripts(client, LUA / "webhooks", LUA / "time.lua", LUA / "webhooks.lua")
        self.schedule = Schedule(client, subscribers, self._lease, keys, "hooks", LOOK_SECONDS)

    def notify(self, group: str) -> None:
        """Schedules a group that may have new deliveries."""
        self.schedule.schedule_quietly(group)

    def notify_if_any(self, group: str) -> None:
        """Schedules the group if it has deliveries: an entry of any other would stay where no webhooks are sent."""
        with map_errors():
            has_deliveries = self._client.exists(GroupKeys(self._keys, group).key("hooksdue"))
        if has_deliveries:
            self.notify(group)

    def claim(self, timeout: float) -> Delivery | None:
        deadline = monotonic() + timeout
        while True:
            since = self.schedule.own_notifications()
            self.schedule.look(at_once=timeout <= 0)
            result = self._next()
            if isinstance(result, Delivery):
                return result
            if monotonic() >= deadline:
                return None
            self.schedule.wait(since, min(deadline - monotonic(), result))

    def _next(self) -> Delivery | float:
        """Returns a claimed delivery, or the seconds until there may be one."""
        while True:
            due = self.schedule.claim_due()
            if isinstance(due, float):
                return due
            group, moment = due
            token = secrets.token_hex(8)
            again, *claimed = self._run("claim", group, self._lease, token, MAX_DUE)
            self.schedule.complete(group, moment, again)
            if claimed:
                return _delivery_of(*claimed, token=token)

    def release(self, delivery: Delivery, delay: float) -> None:
        self._settle(delivery, "release", delay)

    def complete(self, delivery: Delivery) -> None:
        self._settle(delivery, "done")

    def retry(self, delivery: Delivery, delay: float, error: str) -> None:
        self._settle(delivery, "waiting", delay, error)

    def fail(self, delivery: Delivery, error: str) -> None:
        self._settle(delivery, "failed", FAILED_SECONDS, error)

    def _settle(self, delivery: Delivery, outcome: str, delay: float = 0.0, error: str = "") -> None:
        group = delivery.id[:GROUP_CHARACTERS]
        microseconds = str(int(delay * 1_000_000))
        if self._run("settle", group, delivery.id, delivery.token, outcome, microseconds, error):
            self.notify(group)

    def entries(self) -> Sequence[DeliveryEntry]:
        entries: list[DeliveryEntry] = []
        for group in self.schedule.groups():
            if len(entries) >= MAX_LISTED:
                break
            entries += [_entry_of(*fields) for fields in self._run("list", group, MAX_LISTED - len(entries))]
        return entries

    def count(self) -> int:
        return self.schedule.total("zcard", "hooksdue")

    def send_again(self, delivery_id: str) -> bool:
        group = delivery_id[:GROUP_CHARACTERS]
        known = bool(self._run("send_again", group, delivery_id))
        if known:
            self.notify(group)
        return known

    def _run(self, script: str, group: str, *arguments: str | float) -> Any:
        return self._scripts.run(script, GroupKeys(self._keys, group).webhooks, *arguments)


def _delivery_of(delivery_id: str, text: str, status: str, *, token: str = "") -> Delivery:
    url, webhook, message_id, user_id, ended_at, event = json.loads(text)
    tries = int(status.partition(" ")[0] or 0)
    return Delivery(delivery_id, url, webhook, message_id, user_id, int(ended_at) / 1_000_000, event, tries, token)


def _entry_of(delivery_id: str, due: str, text: str, status: str) -> DeliveryEntry:
    delivery = _delivery_of(delivery_id, text, status)
    _, state, error = (f"{status}  ".split(" ", 2)) if status else ("", "waiting", "")
    fields = (delivery.id, delivery.url, delivery.message_id, delivery.user_id, delivery.ended_at)
    state = "failed" if state == "failed" else "waiting"
    return DeliveryEntry(*fields, state, delivery.tries, int(due) / 1_000_000, error.strip())  # type: ignore[arg-type]
