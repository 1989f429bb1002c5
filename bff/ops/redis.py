"""Connections to Redis, Lua scripts and error mapping."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from hashlib import sha1, sha256
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from bff.errors import ServerFull, SettingsError, StorageUnavailable
from bff.ops.redis_errors import explain

MAX_CONNECTIONS: Final = 7
"""Of one process, for commands, which take a fraction of a millisecond each. The subscriber's connection is an eighth; small
hosting plans allow some 20 in all."""
TRIM_INTERVAL_SECONDS: Final = 30.0
"""Idle connections are closed at this interval, so that those of a burst do not stay open."""
TIMEOUT_SECONDS: Final = 5.0
"""For connecting, for the reply to a command, and for a free connection."""
TRANSIENT_ERRORS: Final = (ReadOnlyError, ClusterDownError, TryAgainError)
TRANSIENT_CODES: Final = re.compile(
    r"(^|-|: )(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|BUSY|UNBLOCKED)\b"
)
"""Errors that end with a fail-over, a start or a full disk. redis-py strips the code of errors that it has a class for
(TRANSIENT_ERRORS); scripts in Redis 6 and pipelines put text before the code."""

Client = redis.Redis


def connect(url: str, *, verify: bool = True) -> Client:
    """Opens no connection yet. Raises SettingsError for an invalid URL.

    The client does not retry: only the caller knows whether a command may be executed twice.
    """
    options: dict[str, Any] = {"protocol": 2, "decode_responses": True, "retry": Retry(NoBackoff(), 0)}
    options |= {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS, "socket_keepalive": True}
    if url.startswith("rediss:") and not verify:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    try:
        pool = _Pool.from_url(url, max_connections=MAX_CONNECTIONS, timeout=TIMEOUT_SECONDS, **options)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL={without_password(url)!r} is not a Redis URL: {error}") from error
    return Client.from_pool(pool)  # Closing the client closes the pool, too.


def check(url: str, *, verify: bool = True) -> None:
    """Raises SettingsError if Redis cannot be reached or refuses the credentials."""
    try:
        with connect(url, verify=verify) as client:
            client.ping()
    except (RedisError, OSError) as error:
        raise SettingsError(f"REDIS_URL={without_password(url)!r} cannot be reached: {explain(error) or error}") from error


def ping(client: Client) -> None:
    """Raises StorageUnavailable."""
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
            info: Any = client.info()
        except NoPermissionError:
            return None
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return ServerInfo(version, policy, info.get("role") == "slave", bool(info.get("cluster_enabled")))


def hash_user_id(user_id: str) -> str:
    """A hash of the user id for use in keys: user ids may be long, and contain braces, which mark a cluster's hash slot."""
    return sha256(user_id.encode()).hexdigest()[:32]


def key_prefix(user: str) -> str:
    """The prefix of a user's keys, which share one hash slot of a cluster. `user`: see `hash_user_id`."""
    return f"chat:{{{user}}}:"


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
        if isinstance(error, TRANSIENT_ERRORS) or TRANSIENT_CODES.search(str(error)):
            raise StorageUnavailable(detail=f"Redis: {error}") from error
        raise
    except (RedisError, OSError) as error:
        raise StorageUnavailable(detail=explain(error) or f"Redis: {type(error).__name__}: {error}") from error


class _Pool(redis.BlockingConnectionPool):
    """A pool that closes idle connections."""

    def __init__(self, **options: Any) -> None:
        untyped: Any = super()
        untyped.__init__(**options)
        self._trimmed_at = monotonic()

    def release(self, connection: Any) -> None:
        untyped: Any = super()
        untyped.release(connection)
        if monotonic() >= self._trimmed_at + TRIM_INTERVAL_SECONDS:
            self._trimmed_at = monotonic()
            self._trim()

    def _trim(self) -> None:
        """Takes all free connections out of the pool while it closes them, so that nobody uses one meanwhile."""
        free: list[Any] = []
        with contextlib.suppress(Empty):
            while True:
                free.append(self.pool.get_nowait())
        for connection in reversed(free):
            if connection is not None:
                connection.disconnect()
            self.pool.put_nowait(connection)


class Scripts:
    """Runs the Lua scripts of a folder by file name; `prelude` is prepended to each."""

    def __init__(self, client: Client, folder: Path, prelude: str = "") -> None:
        self._client = client
        self._texts = {path.stem: prelude + path.read_text(encoding="utf-8") for path in folder.glob("*.lua")}
        self._hashes = {name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()}

    def run(self, name: str, keys: Sequence[str], *arguments: str | float) -> Any:
        """Raises StorageUnavailable, ServerFull."""
        with map_errors():
            try:
                return self._client.evalsha(self._hashes[name], len(keys), *keys, *arguments)
            except NoScriptError:  # Redis was restarted, or has flushed its scripts; the script has not run.
                return self._client.eval(self._texts[name], len(keys), *keys, *arguments)
