"""Redis behind Sentinels, which name the primary. After a fail-over they name the replica that was promoted."""

import threading
from copy import copy
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection

from bff.config.redis_url import DistributedURL
from bff.ops.redis_pool import Address, Pool, connection_class

SENTINEL_TIMEOUT_SECONDS: Final = 1.0
"""For an answer of a Sentinel, after which the next one is asked."""
ASK_SECONDS: Final = 1.0
"""Interval at which Sentinels are asked for the primary, also while the known one answers: it may be cut off from its replicas,
which have a new primary."""
SILENT_SECONDS: Final = 10.0
"""The same, after none has answered: that takes a timeout for each of them."""


class _Sentinel(Sentinel):
    def discover_master(self, service_name: str) -> Any:
        """redis-py reorders its list in place: threads that do so at the same time lose Sentinels of it."""
        untyped: Any = Sentinel
        own: Any = copy(self)
        own.sentinels = [*self.sentinels]
        address = untyped.discover_master(own, service_name)
        self.sentinels = own.sentinels
        return address


class SentinelPool(SentinelConnectionPool, Pool):
    """A pool of connections to the primary, which blocks if all are in use."""

    def __init__(self, service: str, sentinel: Sentinel, **options: Any) -> None:
        untyped: Any = super()
        untyped.__init__(service, sentinel, **options)
        self._refresh_at = monotonic() + ASK_SECONDS
        self._refreshing = threading.Lock()

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        self._refresh_address()
        untyped: Any = super()
        return untyped.get_connection(*arguments, **options)

    def _refresh_address(self) -> None:
        """By one thread; others use the known primary meanwhile."""
        if monotonic() >= self._refresh_at and self._refreshing.acquire(blocking=False):
            try:
                answered = self.ask()
                self._refresh_at = monotonic() + (ASK_SECONDS if answered else SILENT_SECONDS)
            finally:
                self._refreshing.release()

    def ask(self) -> bool:
        """Closes the free connections if there is another primary now. Without an answer the known one is used."""
        try:
            untyped: Any = self
            untyped.get_master_address()
        except (RedisError, OSError):
            return False
        return True

    def known_address(self) -> Address:
        """Of the primary. Raises redis-py's errors if no Sentinel has been asked yet, and none answers."""
        untyped: Any = self
        host, port = self.master_address or untyped.get_master_address()
        return host, port

    def check_address(self, connection: Any) -> None:
        """Raises ConnectionError if the connection is to an earlier primary."""
        self._refresh_address()
        if self.master_address not in {None, (connection.host, connection.port)}:
            raise RedisConnectionError("Redis has failed over to another primary")


def connect_by_sentinel(url: DistributedURL, options: dict[str, Any], pool_options: dict[str, Any]) -> redis.Redis:
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")} | ({"ssl": True} if url.tls else {})
    own_login = {"username": url.sentinel_username or None, "password": url.sentinel_password or None}
    timeouts = {"socket_timeout": SENTINEL_TIMEOUT_SECONDS, "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS}
    untyped_sentinel: Any = _Sentinel
    sentinel = untyped_sentinel(
        url.hosts,
        sentinel_kwargs=tls | own_login | timeouts | {"decode_responses": True, "protocol": 2, "retry": options["retry"]},
    )
    login = {"username": url.username or None, "password": url.password or None, "db": url.db}
    managed = connection_class(SentinelManagedSSLConnection if url.tls else SentinelManagedConnection)
    pool = SentinelPool(url.service, sentinel, connection_class=managed, **pool_options, **options, **login)
    return redis.Redis.from_pool(pool)
