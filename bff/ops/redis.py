"""Connections to Redis, and error mapping.

Redis is one server, or one behind Sentinels (redis_sentinel.py), or a cluster (redis_cluster.py).
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from bff.config.redis_url import parse_distributed
from bff.errors import ServerFull, SettingsError, StorageUnavailable
from bff.ops.redis_cluster import ClusterClient
from bff.ops.redis_errors import explain
from bff.ops.redis_pool import Pool, connection_class
from bff.ops.redis_sentinel import SentinelPool, connect_by_sentinel

MAX_CONNECTIONS: Final = 7
"""Of one process, for commands, which take a fraction of a millisecond each. The subscriber's connection is an eighth; small
hosting plans allow some 20 in all. To a cluster's node one less, as one node has two subscribers' connections."""
TIMEOUT_SECONDS: Final = 5.0
"""For connecting, for the reply to a command, and for a free connection."""
TRANSIENT_ERRORS: Final = (ReadOnlyError, ClusterDownError, TryAgainError)
TRANSIENT_CODES: Final = re.compile(
    r"(^|-|: )(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|BUSY|UNBLOCKED|WAIT cannot be used)\b"
)
"""Errors that end with a fail-over, a start or a full disk. redis-py strips the code of errors that it has a class for
(TRANSIENT_ERRORS); scripts in Redis 6 and pipelines put text before the code."""
NON_LOCAL_KEY: Final = "access a non local key in a cluster node"
"""A script's key that was not declared, or whose slot has just moved; transient, as the script checks its keys first."""

Client = redis.Redis
"""A cluster's client has the same methods, as far as they are used here."""


def connect(url: str, *, verify: bool = True) -> Client:
    """Opens no connection yet. Raises SettingsError for an invalid URL.

    The client does not retry: only the caller knows whether a command may be executed twice.
    """
    options: dict[str, Any] = {"protocol": 2, "decode_responses": True, "socket_keepalive": True}
    options["driver_info"] = redis.DriverInfo()  # One for all connections: it reads redis-py's version from files, in 5 ms.
    options |= {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    pool_options = {"max_connections": MAX_CONNECTIONS, "timeout": TIMEOUT_SECONDS}
    if url.startswith("rediss") and not verify:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    try:
        if "+" not in url.partition(":")[0]:
            pool = Pool.from_url(url, **pool_options, **options, retry=_no_retries())
            pool.connection_class = connection_class(pool.connection_class)
            return Client.from_pool(pool)  # Closing the client closes the pool, too.
        address = parse_distributed(url)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL={without_password(url)!r} is not a Redis URL: {error}") from error
    if address.form == "sentinel":
        return connect_by_sentinel(address, options | {"retry": _no_retries()}, pool_options)
    pool_options["max_connections"] -= 1
    return cast(Client, ClusterClient(address, options | pool_options, _no_retries(), map_errors))


def _no_retries() -> Retry:
    return Retry(NoBackoff(), 0)


def is_cluster(client: Client) -> bool:
    return isinstance(client, ClusterClient)


def is_sharded(client: Client) -> bool:
    """Whether channels are published in the slot of their keys. Raises StorageUnavailable."""
    return isinstance(client, ClusterClient) and client.has_sharded_pubsub()


def is_replicated(client: Client) -> bool:
    """Whether a replica takes over if the primary fails, which may lack the last writes."""
    return isinstance(client, ClusterClient) or isinstance(client.connection_pool, SentinelPool)


def new_connection(client: Client) -> Any:
    """Returns a connection of its own, which the pool does not count."""
    pool = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


def new_connection_check(client: Client) -> Callable[[Any], None]:
    """Returns a function that raises for a connection to a server that is not the primary any more."""
    pool = client.connection_pool
    return pool.check_address if isinstance(pool, SentinelPool) else lambda _: None


def check(url: str, *, verify: bool = True) -> None:
    """Raises SettingsError if Redis cannot be reached or refuses the credentials."""
    try:
        with connect(url, verify=verify) as client:
            client.ping()
    except (RedisError, RedisClusterException, OSError) as error:
        raise SettingsError(f"REDIS_URL={without_password(url)!r} cannot be reached: {explain(error) or error}") from error


def ping(client: Client) -> None:
    """Raises StorageUnavailable; in a cluster, if any primary does not answer, as redis-py asks one node only."""
    if isinstance(client, ClusterClient):
        client.check_primaries()
        return
    with map_errors():
        client.ping()


class ServerInfo(NamedTuple):
    version: tuple[int, ...]
    policy: str
    """`maxmemory_policy`: what Redis does when its memory is full."""
    is_replica: bool
    is_cluster: bool
    """Whether it is a node of a cluster, possibly the only one."""


def about(client: Client) -> ServerInfo | None:
    """Returns None if the ACL lacks +info, which nothing else needs. Raises StorageUnavailable."""
    with map_errors():
        try:
            infos = _infos(client)
        except NoPermissionError:
            return None
    version = min(tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) for info in infos)
    policies = {str(info.get("maxmemory_policy", "noeviction")) for info in infos}
    policy = min(policies - {"noeviction"}, default="noeviction")
    info = infos[0]
    return ServerInfo(version, policy, info.get("role") == "slave", bool(info.get("cluster_enabled")))


def _infos(client: Client) -> list[Any]:
    """Of the server; in a cluster of each primary, as redis-py asks one node only."""
    if not isinstance(client, ClusterClient):
        return [client.info()]
    untyped: Any = client
    return [untyped.info(target_nodes=[node]) for node in untyped.get_primaries()]


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


@contextlib.contextmanager
def map_errors() -> Iterator[None]:
    """Maps redis-py's errors to StorageUnavailable, or ServerFull if out of memory. Other error replies are bugs, and stay."""
    try:
        yield
    except ResponseError as error:
        if "command not allowed when used memory" in str(error):
            raise ServerFull(detail="Redis is out of memory: see its maxmemory") from error
        if message := explain(error):
            raise StorageUnavailable(detail=message) from error
        if isinstance(error, TRANSIENT_ERRORS) or TRANSIENT_CODES.search(str(error)) or NON_LOCAL_KEY in str(error):
            raise StorageUnavailable(detail=f"Redis: {error}") from error
        raise
    except (RedisError, RedisClusterException, OSError) as error:
        raise StorageUnavailable(detail=explain(error) or f"Redis: {type(error).__name__}: {error}") from error
