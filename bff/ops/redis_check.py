"""Checks that Redis can be used as the queue and the limits use it: its role, slots, commands, channels, and writes."""

from contextlib import closing
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any, Final

from bff.errors import StorageUnavailable
from bff.ops import redis
from bff.ops.redis import Client, map_errors
from bff.ops.redis_cluster import ClusterClient
from bff.ops.redis_keys import Keys
from bff.ops.redis_scripts import Scripts

KEY_SECONDS: Final = 60
"""Time to live of the key that the check sets."""
DELIVERY_SECONDS: Final = 2.0
"""Maximum time for a published message to arrive; less than PROBE_TIMEOUT_SECONDS."""
SLOTS: Final = 16
"""Keys in different slots of a cluster: one of two nodes lacks at least one of them, but for a chance of 1 in 65,000."""

_NAME: Final = f"ready:{{{token_hex(8)}}}"


def check_use(client: Client, keys: Keys = Keys()) -> None:  # noqa: B008 - frozen
    """Raises StorageUnavailable with a sentence as `detail`, or ServerFull if Redis is out of memory."""
    key = keys.name(_NAME)
    if not isinstance(client, ClusterClient):
        _check_role(client)
        _check_slots(client, keys)
    _check_commands(client, key)
    _check_scripts(client, key)
    channel = keys.name(f"ready:{token_hex(8)}")
    _check_delivery(client.server_of(channel)[0] if isinstance(client, ClusterClient) else client, channel)


def _check_role(client: Client) -> None:
    """A replica's writes are lost, even if it accepts them (`replica-read-only no`)."""
    server = redis.about(client)
    if server is not None and server.is_replica:
        raise StorageUnavailable(detail="Redis is a replica: REDIS_URL must name the primary")


def _check_slots(client: Client, keys: Keys) -> None:
    """A server that is not addressed as a cluster may be a node of one."""
    with map_errors(), client.pipeline(transaction=False) as pipe:
        for number in range(SLOTS):
            pipe.exists(keys.name(f"ready:{number}"))
        pipe.execute()


def _check_commands(client: Client, key: str) -> None:
    """EVAL is needed only after a restart of Redis, when EVALSHA does not find a script."""
    with map_errors():
        client.set(key, "", ex=KEY_SECONDS)
        client.exists(key)
        client.eval("return 1", 1, key)


def _check_scripts(client: Client, key: str) -> None:
    scripts = Scripts(client, Path(__file__).parent / "lua" / "check")
    scripts.run("commands", [f"{key}{number}" for number in range(5)], key)


def _check_delivery(client: Any, channel: str) -> None:
    deadline = monotonic() + DELIVERY_SECONDS
    with map_errors(), closing(client.pubsub()) as subscriber:
        subscriber.subscribe(channel)
        while (seconds := deadline - monotonic()) > 0:
            received = subscriber.get_message(timeout=seconds)
            if received and received["type"] == "subscribe":
                client.publish(channel, "")
            elif received and received["type"] == "message":
                return
    raise StorageUnavailable(detail="Redis does not deliver published messages")
