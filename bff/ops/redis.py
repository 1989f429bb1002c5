"""Redis, reached: connections bounded in number and in time, scripts, and one error for all that can go wrong on the way."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from hashlib import sha1, sha256
from pathlib import Path
from queue import Empty
from secrets import token_hex
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError, TryAgainError
from redis.retry import Retry

from bff.errors import ServerFull, SettingsError, StorageUnavailable

CONNECTIONS: Final = 7
"""Of one process, for commands, which take a fraction of a millisecond each; small plans allow some 20 in all. With the
one that listens they are eight."""
SPARE_SECONDS: Final = 30.0
"""After which connections that nobody uses are closed: those of a burst, and one that is opened again at once."""
SECONDS: Final = 5.0
"""For connecting, for a command's answer, and for a free connection."""
PASSING: Final = (ReadOnlyError, ClusterDownError, TryAgainError)
PASSING_WORDS: Final = re.compile(
    r"(^|-|: )(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|BUSY|UNBLOCKED)\b"
)
"""Refusals that are over when a fail-over, a start or a disk is. The library takes the first word of those it knows away;
a script in Redis 6, and a pipeline, put words of their own before it."""

READY_SECONDS: Final = 60
"""For which the key exists that shows whether Redis takes writes."""
_READY: Final = f"chat:ready:{token_hex(8)}"

Client = redis.Redis


def connect(url: str, *, verify: bool = True) -> Client:
    """Opens nothing yet. Raises SettingsError for a URL that is none.

    Nothing is tried again by itself: only who asked knows whether asking twice does a thing twice.
    """
    options: dict[str, Any] = {"protocol": 2, "decode_responses": True, "retry": Retry(NoBackoff(), 0)}
    options |= {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "socket_keepalive": True}
    if url.startswith("rediss:") and not verify:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    try:
        pool = _Pool.from_url(url, max_connections=CONNECTIONS, timeout=SECONDS, **options)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL={without_password(url)!r} is not a Redis URL: {error}") from error
    return Client.from_pool(pool)  # Which closes the pool with the client.


def check(url: str, *, verify: bool = True) -> None:
    """Raises SettingsError when it does not answer, or lets nobody in."""
    try:
        with connect(url, verify=verify) as client:
            client.ping()
    except (RedisError, OSError) as error:
        raise SettingsError(f"REDIS_URL={without_password(url)!r} cannot be reached: {error}") from error


def ping(client: Client) -> None:
    """Raises Away."""
    with map_errors():
        client.ping()


def check_writes(client: Client) -> None:
    """Sets a key of this process's and publishes to nobody. Raises Away, or ServerFull when Redis has no memory left."""
    with map_errors():
        client.set(_READY, "", ex=READY_SECONDS)
        client.publish(_READY, "")


class About(NamedTuple):
    version: tuple[int, ...]
    policy: str
    """What it does when its memory is full."""


def about(client: Client) -> About:
    """Raises Away."""
    with map_errors():
        told: Any = client.info()
    version = tuple(int(part) for part in str(told["redis_version"]).split(".")[:2])
    return About(version, str(told.get("maxmemory_policy", "noeviction")))


def key_of(user_id: str) -> str:
    """What stands for a user in keys: a user id may be long, and may hold what means something to Redis."""
    return sha256(user_id.encode()).hexdigest()[:32]


def keys_of(user: str) -> str:
    """What the keys of one whom `user` stands for begin with: they live in one slot of a cluster."""
    return f"chat:{{{user}}}:"


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


@contextlib.contextmanager
def map_errors() -> Iterator[None]:
    """Raises Away, or ServerFull when Redis has no memory left, for what the library raises; its other refusals are bugs."""
    try:
        yield
    except ResponseError as error:
        if "command not allowed when used memory" in str(error):
            raise ServerFull(detail="Redis is out of memory") from error
        if isinstance(error, PASSING) or PASSING_WORDS.search(str(error)):
            raise StorageUnavailable(detail=f"Redis: {error}") from error
        raise
    except (RedisError, OSError) as error:
        raise StorageUnavailable(detail=f"Redis: {type(error).__name__}: {error}") from error


class _Pool(redis.BlockingConnectionPool):
    """Lets go of what it has too much of."""

    def __init__(self, **options: Any) -> None:
        untyped: Any = super()
        untyped.__init__(**options)
        self._spared_at = monotonic()

    def release(self, connection: Any) -> None:
        untyped: Any = super()
        untyped.release(connection)
        if monotonic() >= self._spared_at + SPARE_SECONDS:
            self._spared_at = monotonic()
            self._spare()

    def _spare(self) -> None:
        """Those that are free are taken out while they are closed, so that nobody gets one at that moment."""
        free: list[Any] = []
        with contextlib.suppress(Empty):
            while True:
                free.append(self.pool.get_nowait())
        for connection in reversed(free):
            if connection is not None:
                connection.disconnect()
            self.pool.put_nowait(connection)


class Scripts:
    """The Lua files of a folder, by name; `prelude` goes before each."""

    def __init__(self, client: Client, folder: Path, prelude: str = "") -> None:
        self._client = client
        self._texts = {path.stem: prelude + path.read_text(encoding="utf-8") for path in folder.glob("*.lua")}
        self._hashes = {name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()}

    def run(self, name: str, keys: Sequence[str], *arguments: str | float) -> Any:
        """Raises Away, ServerFull."""
        with map_errors():
            try:
                return self._client.evalsha(self._hashes[name], len(keys), *keys, *arguments)
            except NoScriptError:  # A Redis that was started anew knows none. It has done nothing yet.
                return self._client.eval(self._texts[name], len(keys), *keys, *arguments)
