"""Schedules groups of which a fail-over has lost that they are scheduled.

A promoted replica may lack the last moments. If a group and its part of the schedule are on different nodes of a cluster, or if
one was changed on the old primary and the other one on the new one, the group has a message that no worker would look for.
"""

import logging
from math import inf
from time import monotonic
from typing import Final, cast

from bff.broker.queue.redis.schedule import Schedule
from bff.ops.redis import Client, is_replicated, map_errors
from bff.ops.redis_cluster import ClusterClient
from bff.ops.redis_keys import Keys
from bff.ops.redis_pool import Address
from bff.ops.redis_sentinel import SentinelPool

REPAIR_SECONDS: Final = 300
"""Between two repairs by any process; also after each change of the primaries. Each looks at the names of all keys."""
MIN_REPAIR_SECONDS: Final = 2
SCAN_COUNT: Final = 1000
"""Keys per SCAN: well under a millisecond of the node's time."""

log = logging.getLogger(__name__)


class Repair:
    def __init__(self, client: Client, schedule: Schedule, keys: Keys, webhooks: Schedule) -> None:
        """`webhooks`: the schedule of groups with webhook deliveries."""
        self._client = client
        self._webhooks = webhooks
        self._schedule = schedule
        self._keys = keys
        self._primaries: frozenset[Address] = frozenset()
        self._next = -inf

    def run_if_due(self) -> None:
        """Raises StorageUnavailable, ServerFull."""
        if not is_replicated(self._client):
            return
        primaries = _primaries(self._client)
        has_changed = primaries != self._primaries
        if (has_changed or monotonic() >= self._next) and self._acquire(MIN_REPAIR_SECONDS if has_changed else REPAIR_SECONDS):
            self._run()
        if has_changed or monotonic() >= self._next:
            self._primaries, self._next = primaries, monotonic() + REPAIR_SECONDS

    def _acquire(self, seconds: int) -> bool:
        """One process repairs for all."""
        name = "repair" if seconds == REPAIR_SECONDS else "repair-at-once"
        with map_errors():
            return bool(self._client.set(self._keys.name(name), "1", nx=True, ex=seconds))

    def _run(self) -> None:
        with map_errors():
            for key in self._client.scan_iter(f"{self._keys.prefix}:{{*}}:[hqr]*", SCAN_COUNT):
                group, _, name = key.removeprefix(f"{self._keys.prefix}:{{").partition("}:")
                if name in {"q", "run"}:
                    self._schedule.schedule_missing(group)
                elif name == "hooksdue":
                    self._webhooks.schedule_missing(group)


def _primaries(client: Client) -> frozenset[Address]:
    if isinstance(client, ClusterClient):
        return client.primaries()
    with map_errors():
        return frozenset({cast(SentinelPool, client.connection_pool).known_address()})
