"""Checks that Redis can be used as the queue and the limits use it: its role, slots, commands, channels, and writes."""

from contextlib import closing
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any, Final

from bff.errors import StorageUnavailable
from bff.ops import redis
from bff.ops.redis import Client, Scripts, map_errors

KEY_SECONDS: Final = 60
"""Time to live of the key that the check sets."""
DELIVERY_SECONDS: Final = 2.0
"""Maximum time for a published message to arrive; less than PROBE_TIMEOUT_SECONDS."""
SLOTS: Final = 16
"""Keys in different slots of a cluster: one of two nodes lacks at least one of them, but for a chance of 1 in 65,000."""

_KEY: Final = f"chat:ready:{{{token_hex(8)}}}"


def check_use(client: Client) -> None:
    """Raises StorageUnavailable with a sentence as `detail`, or ServerFull if Redis is out of memory."""
    _check_role(client)
    _check_slots(client)
    _check_transaction(client)
    _check_scripts(client)
    _check_delivery(client)


def _check_role(client: Client) -> None:
    """A replica's writes are lost, even if it accepts them (`replica-read-only no`)."""
    server = redis.about(client)
    if server is not None and server.is_replica:
        raise StorageUnavailable(detail="Redis is a replica: REDIS_URL must name the primary")


def _check_slots(client: Client) -> None:
    with map_errors(), client.pipeline(transaction=False) as pipe:
        for number in range(SLOTS):
            pipe.exists(f"chat:ready:{number}")
        pipe.execute()


def _check_transaction(client: Client) -> None:
    with map_errors(), client.pipeline() as pipe:
        pipe.set(_KEY, "", ex=KEY_SECONDS)
        pipe.exists(_KEY)
        pipe.execute()


def _check_scripts(client: Client) -> None:
    """EVAL is needed only after a restart of Redis, when EVALSHA does not find a script."""
    with map_errors():
        client.eval("return 1", 0)
    Scripts(client, Path(__file__).parent / "lua" / "check").run("commands", [_KEY], _KEY)


def _check_delivery(client: Client) -> None:
    channel = f"chat:ready:{token_hex(8)}"
    deadline = monotonic() + DELIVERY_SECONDS
    untyped: Any = client
    with map_errors(), closing(untyped.pubsub()) as subscriber:
        subscriber.subscribe(channel)
        while (seconds := deadline - monotonic()) > 0:
            received = subscriber.get_message(timeout=seconds)
            if received and received["type"] == "subscribe":
                client.publish(channel, "")
            elif received and received["type"] == "message":
                return
    raise StorageUnavailable(detail="Redis does not deliver published messages")
