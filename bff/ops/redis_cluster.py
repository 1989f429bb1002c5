"""Redis Cluster: each node has a part of the 16384 slots of the keys."""

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from redis.cluster import PRIMARY, ClusterNode, RedisCluster, get_node_name
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from bff.config.redis_url import DistributedURL
from bff.errors import StorageUnavailable
from bff.ops.redis_pool import Address, Pool, connection_class

PAUSE_SECONDS: Final = 5.0
"""In which calls to a node fail after one that timed out."""


class ClusterClient:
    """redis-py's client of a cluster, which connects when it is created; this one connects at its first use."""

    def __init__(
        self, url: DistributedURL, options: dict[str, Any], retry: Retry, map_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        login = {"username": url.username or None, "password": url.password or None} | ({"ssl": True} if url.tls else {})
        self._map_errors = map_errors
        self._new_client = partial(_new_client, url, options | {name: value for name, value in login.items() if value}, retry)
        self._lock = threading.Lock()
        self._client: Any = None
        self._failed_at = float("-inf")
        self._sharded: bool | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected(), name)

    def __enter__(self) -> "ClusterClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                for node in self._client.get_nodes():  # redis-py does not close pools of a class that is not its own.
                    if node.redis_connection is not None:
                        node.redis_connection.connection_pool.disconnect()
                self._client.close()

    def _connected(self) -> Any:
        if self._client is None:
            began = monotonic()
            with self._lock:
                if self._client is None:
                    if self._failed_at >= began:  # Another thread has just waited for each of them.
                        raise RedisConnectionError("no node of the cluster answered a moment ago")
                    try:
                        self._client = self._new_client()
                    except Exception:
                        self._failed_at = monotonic()
                        raise
        return self._client

    def has_sharded_pubsub(self) -> bool:
        """Whether the nodes have it, since Redis 7. Raises StorageUnavailable."""
        if self._sharded is None:
            with self._map_errors():
                try:
                    self._connected().execute_command("PUBSUB SHARDNUMSUB", target_nodes=RedisCluster.RANDOM)
                    self._sharded = True
                except NoPermissionError:
                    raise
                except ResponseError:
                    self._sharded = False
        return self._sharded

    def refresh(self) -> None:
        """Asks for the nodes and their slots. Raises StorageUnavailable."""
        with self._map_errors():
            self._connected().nodes_manager.initialize()

    def primaries(self) -> frozenset[Address]:
        """Raises StorageUnavailable."""
        with self._map_errors():
            return frozenset((node.host, node.port) for node in self._connected().get_primaries())

    def check_primaries(self) -> None:
        """Raises StorageUnavailable if one does not answer; it names that one. Then asks for the nodes again."""
        for address in sorted(self.primaries()):
            try:
                with self._map_errors():
                    self._client_at(address).ping()
            except StorageUnavailable as error:
                with suppress(StorageUnavailable):
                    self.refresh()  # For the next call: another node may take its place.
                detail = f"Redis Cluster lacks its node {address[0]}:{address[1]}: {error.detail}"
                raise StorageUnavailable(detail=detail) from error

    def primary_of(self, key: str) -> Address:
        """Raises StorageUnavailable."""
        return self.server_of(key)[1]

    def server_of(self, key: str) -> tuple[Any, Address]:
        """The client of the key's node alone, and that node's address. Raises StorageUnavailable."""
        with self._map_errors():
            client = self._connected()
            node = client.get_node_from_key(key)
            return client.get_redis_connection(node), (node.host, node.port)

    def ask_primary_of(self, key: str, replaced: Address) -> Address:
        """The key's node according to a node other than the possibly `replaced` one. Raises StorageUnavailable."""
        client = self._connected()
        slot = client.keyslot(key)
        others = [node for node in client.get_nodes() if (node.host, node.port) != replaced]
        if not others:
            return replaced
        for node in random.sample(others, len(others)):
            with suppress(StorageUnavailable), self._map_errors():
                for first, last, (host, port, *_), *_ in client.get_redis_connection(node).execute_command("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        return host or node.host, port
        raise StorageUnavailable(detail="Redis Cluster: no other node names the primary of a slot")

    def check_node(self, connection: Any) -> None:
        """Raises ConnectionError if the connection is to a node that has left the cluster."""
        if self._connected().get_node(connection.host, connection.port) is None:
            raise RedisConnectionError("the node has left the cluster")

    def connect_to_any_node(self) -> Any:
        node = self._connected().get_random_primary_node()
        return self.connect_to((node.host, node.port))

    def connect_to(self, address: Address) -> Any:
        """Returns a connection of its own, which no pool counts."""
        pool = self._client_at(address).connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def _client_at(self, address: Address) -> Any:
        client = self._connected()
        node = client.get_node(*address)
        if node is None:
            raise ConnectionError(f"the cluster has no node {address[0]}:{address[1]} any more")
        return client.get_redis_connection(node)


def _new_client(url: DistributedURL, options: dict[str, Any], retry: Retry) -> Any:
    untyped: Any = _Cluster
    untyped_node: Any = ClusterNode
    nodes = [untyped_node(host, port) for host, port in url.hosts[1:]]
    host, port = url.hosts[0]
    location = f"{'rediss' if url.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}"
    # The class of the pool is used with a URL only.
    options = {name: value for name, value in options.items() if name != "ssl"}
    client = untyped(url=location, startup_nodes=nodes, connection_pool_class=ClusterPool, retry=retry, **options)
    client.nodes_manager.initialize = _one_refresh_at_a_time(client.nodes_manager, url.hosts)
    return client


def _one_refresh_at_a_time(manager: Any, hosts: tuple[Address, ...]) -> Callable[..., None]:
    """redis-py asks for the nodes after each call that failed, which takes a timeout for each silent node.

    One thread does it while the others go on with their errors. REDIS_URL's hosts are asked last, as all nodes may have moved.
    """
    initialize, lock = manager.initialize, threading.Lock()

    def refresh(additional_startup_nodes_info: list[Address] | None = None, **options: Any) -> None:
        redirected = additional_startup_nodes_info is not None  # This caller goes on with the new nodes.
        if not lock.acquire(blocking=redirected):
            return
        try:
            others = [host for host in hosts if get_node_name(*host) not in manager.startup_nodes]
            initialize(additional_startup_nodes_info=[*(additional_startup_nodes_info or ()), *others], **options)
        finally:
            lock.release()

    return refresh


class _Cluster(RedisCluster):
    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        """With a name, also a node that has joined since: the first slot that moves to it redirects there."""
        untyped: Any = super()
        node = untyped.get_node(host, port, node_name)
        if node is None and node_name is not None:
            name, _, number = node_name.rpartition(":")
            untyped_node: Any = ClusterNode
            with self.nodes_manager._lock:
                node = self.nodes_manager.nodes_cache.setdefault(node_name, untyped_node(name, int(number), PRIMARY))
        return node


class ClusterPool(Pool):
    """Of connections to one node.

    After a call that timed out, others fail at once for a while: whoever works through many groups would wait for a frozen node
    once for each of its groups.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.connection_class = connection_class(self.connection_class)
        self._try_again_at = 0.0

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if monotonic() < self._try_again_at:
            raise RedisConnectionError("the node did not answer in time a moment ago")
        untyped: Any = super()
        try:
            return untyped.get_connection(*arguments, **options)
        except RedisTimeoutError:
            self._pause()
            raise

    def release(self, connection: Any) -> None:
        """If the node that a call was redirected to fails, redis-py releases the first node's connection again, and here."""
        if connection.holder != threading.get_ident():
            return
        connection.holder = 0
        if connection.timed_out:
            connection.timed_out = False
            self._pause()
        super().release(connection)

    def _pause(self) -> None:
        self._try_again_at = monotonic() + PAUSE_SECONDS
