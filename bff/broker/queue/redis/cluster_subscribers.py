"""Receives published messages from the nodes of a cluster.

A log's and the schedule's channels are in the slot of their keys: the slot's node has them (sharded pub/sub). All other
channels are published on every node.
"""

import threading
from functools import partial

from bff.broker.queue.redis.subscriber import Callback, Subscriber, Subscribers
from bff.errors import StorageUnavailable
from bff.ops.redis import Client, new_connection, new_connection_check
from bff.ops.redis_cluster import ClusterClient
from bff.ops.redis_pool import Address


def subscribers_of(client: Client) -> Subscribers:
    if isinstance(client, ClusterClient):
        return ClusterSubscribers(client)
    return Subscriber(partial(new_connection, client), new_connection_check(client))


class ClusterSubscribers:
    """A Subscriber per node with a slot that has a channel, and one for the channels on every node.

    If a connection fails, its channels move with their slots: to the promoted replica, or to the node that took over the slot.
    """

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._everywhere = Subscriber(client.connect_to_any_node, client.check_node, self._refresh)
        self._lock = threading.Lock()
        self._nodes: dict[Address, Subscriber] = {}
        self._routes: dict[str, Address] = {}
        """By sharded channel, the node of its subscription."""

    def subscribe(self, channel: str, callback: Callback, *, sharded: bool = False) -> None:
        if not sharded:
            self._everywhere.subscribe(channel, callback)
            return
        address = self._routes.get(channel) or self._client.primary_of(channel)
        with self._lock:
            self._node(self._routes.setdefault(channel, address)).subscribe(channel, callback)

    def unsubscribe(self, channel: str, callback: Callback) -> None:
        with self._lock:
            address = self._routes.get(channel)
            if address is None:
                self._everywhere.unsubscribe(channel, callback)
                return
            node = self._nodes[address]
            node.unsubscribe(channel, callback)
            if not node.has(channel):
                del self._routes[channel]

    def close(self) -> None:
        with self._lock:
            nodes = [*self._nodes.values()]
        for node in (self._everywhere, *nodes):
            node.close()

    def _node(self, address: Address) -> Subscriber:
        """Called with the lock held."""
        if address not in self._nodes:
            connect, failed = partial(self._client.connect_to, address), partial(self._reroute, address)
            self._nodes[address] = Subscriber(connect, failed=failed, command="SSUBSCRIBE")
        return self._nodes[address]

    def _refresh(self) -> None:
        try:
            self._client.refresh()
        except StorageUnavailable:
            return  # The subscriber's next failure tries again.

    def _reroute(self, failed: Address) -> None:
        """Moves channels whose slots are on another node now."""
        self._refresh()
        with self._lock:
            node = self._nodes[failed]
            for channel in node.channels():
                address = self._address_of(channel, failed)
                if address != failed:
                    self._routes[channel] = address
                    for callback in node.take(channel):
                        self._node(address).subscribe(channel, callback)
            if not node.channels():
                del self._nodes[failed]
                node.close()

    def _address_of(self, channel: str, otherwise: Address) -> Address:
        try:
            return self._client.primary_of(channel)
        except StorageUnavailable:
            return otherwise
