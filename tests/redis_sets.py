"""Redis servers that belong together: a set behind Sentinels, and a cluster. All on this machine, on free ports."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

from bff.ops.redis import Client, connect
from tests.live import eventually, free_port
from tests.redis_server import RedisServer, redis_or_skip

FAIL_OVER_MS = 1000
"""Silence after which a primary counts as failed."""
DEADLINE = 30.0
FAST_REPLICATION = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--appendonly", "no")


class Sentinel(RedisServer):
    """A Sentinel writes its state into its configuration file."""

    def __init__(self, folder: Path, primary: int, *options: str) -> None:
        """`primary`: its port."""
        self.config = folder / "sentinel.conf"
        self.config.write_text(
            f"sentinel monitor chat 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds chat {FAIL_OVER_MS}\n"
            "sentinel failover-timeout chat 5000\n"
            "sentinel parallel-syncs chat 2\n"
        )
        super().__init__(folder, *options)

    def start(self) -> None:
        command = [redis_or_skip(), str(self.config), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([*command, "--dir", str(self.folder), *self._options], stdout=log, stderr=log)
        assert eventually(self._is_up, 20), (self.folder / "redis.log").read_text()


class RedisSet:
    """Several servers that act as one Redis."""

    url: str
    nodes: list[RedisServer]

    def flush(self) -> None:
        for node in self.nodes:
            with connect(node.url) as client, contextlib.suppress(Exception):  # Replicas refuse; the primaries' reach them.
                client.flushall()

    def primaries(self) -> list[RedisServer]:
        return [node for node in self.nodes if is_primary(node)]

    def stop(self) -> None:
        for node in self._all():
            node.thaw()
            node.process.send_signal(signal.SIGKILL)
        for node in self._all():
            node.process.wait(20)

    def _all(self) -> list[RedisServer]:
        return self.nodes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def revive(self, node: RedisServer) -> None:
        """Starts a server that was killed, and waits until it has joined."""
        node.start()
        self.wait_until_complete()

    def wait_until_complete(self) -> None:
        raise NotImplementedError

    def fail_over_after(self, milliseconds: int) -> None:
        """Changes the silence after which a primary counts as failed."""
        raise NotImplementedError


class SentinelSet(RedisSet):
    """A primary, replicas and three Sentinels."""

    def __init__(self, folder: Path, replicas: int = 1, *options: str) -> None:
        self.nodes = [RedisServer(_new(folder, "primary"), *FAST_REPLICATION, *options)]
        of_primary = ("--replicaof", f"127.0.0.1 {self.nodes[0].port}")
        for number in range(replicas):
            self.nodes.append(RedisServer(_new(folder, f"replica-{number}"), *FAST_REPLICATION, *of_primary, *options))
        self.sentinels = [Sentinel(_new(folder, f"sentinel-{number}"), self.nodes[0].port) for number in range(3)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/chat/0"
        self.wait_until_complete()

    def _all(self) -> list[RedisServer]:
        return [*self.sentinels, *self.nodes]

    @property
    def primary(self) -> RedisServer:
        """The one that the Sentinels name."""
        with connect(self.sentinels[0].url) as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "chat")
        return next(node for node in self.nodes if node.port == int(port))

    def wait_until_complete(self) -> None:
        assert eventually(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels), DEADLINE)
        assert eventually(lambda: _has_replicas(self.primary, len(self.nodes) - 1), DEADLINE)

    def fail_over_after(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            with connect(sentinel.url) as client:
                execute(client, "SENTINEL", "SET", "chat", "down-after-milliseconds", milliseconds)

    def _knows_all(self, sentinel: RedisServer) -> bool:
        with connect(sentinel.url) as client:
            pairs = client.execute_command("SENTINEL", "MASTER", "chat")
        state: dict[str, str] = pairs if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))
        known = (int(state["num-slaves"]), int(state["num-other-sentinels"]), state["flags"])
        return known == (len(self.nodes) - 1, 2, "master")

    def fail_over(self, end: Callable[[RedisServer], None]) -> RedisServer:
        """Ends the primary by `end`, such as RedisServer.freeze. Returns it once another one is the primary."""
        old = self.primary
        end(old)
        assert eventually(lambda: self.primary is not old and is_primary(self.primary), DEADLINE)
        return old


class Cluster(RedisSet):
    """Primaries with equal numbers of slots, each with one replica or none."""

    def __init__(self, folder: Path, primaries: int = 3, replicas: int = 1, *options: str) -> None:
        self.nodes = []
        self._folder, self._options = folder, options
        self._size, self._replicas = primaries, replicas
        for number in range(primaries * (1 + replicas)):
            self.nodes.append(RedisServer(_new(folder, f"node-{number}"), *self._options_of_node()))
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"
        self._assemble()

    def _options_of_node(self) -> tuple[str, ...]:
        own = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", str(FAIL_OVER_MS))
        quick = ("--cluster-replica-validity-factor", "0", "--cluster-migration-barrier", "99")
        return (*own, *quick, *FAST_REPLICATION, *self._options)

    def _assemble(self) -> None:
        clients = [connect(node.url) for node in self.nodes]
        step = 16384 // self._size
        for number, client in enumerate(clients[: self._size]):
            last = 16383 if number == self._size - 1 else step * (number + 1) - 1
            execute(client, "CLUSTER", "ADDSLOTSRANGE", step * number, last)
            execute(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            execute(clients[0], "CLUSTER", "MEET", "127.0.0.1", node.port, _bus_port(node))
        assert eventually(lambda: all(_known_nodes(client) == len(self.nodes) for client in clients), DEADLINE)
        for number, client in enumerate(clients[self._size :]):
            primary_id = execute(clients[number % self._size], "CLUSTER", "MYID")
            assert eventually(lambda c=client, i=primary_id: _replicates(c, i), DEADLINE)
        for client in clients:
            client.close()
        self.wait_until_complete()

    def wait_until_complete(self) -> None:
        assert eventually(lambda: all(_cluster_is_ok(node) for node in self.nodes), DEADLINE)
        if self._replicas:
            assert eventually(lambda: len(self.primaries()) == self._size, DEADLINE)
            assert eventually(lambda: all(_has_replicas(node, self._replicas) for node in self.primaries()), DEADLINE)

    def fail_over_after(self, milliseconds: int) -> None:
        for node in self.nodes:
            with connect(node.url) as client:
                execute(client, "CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def add_node(self) -> RedisServer:
        """A primary without slots, which all nodes know."""
        node = RedisServer(_new(self._folder, f"node-{len(self.nodes)}"), *self._options_of_node())
        with connect(self.nodes[0].url) as client:
            execute(client, "CLUSTER", "MEET", "127.0.0.1", node.port, _bus_port(node))
        self.nodes.append(node)
        clients = [connect(one.url) for one in self.nodes]
        assert eventually(lambda: all(_known_nodes(client) == len(self.nodes) for client in clients), DEADLINE)
        assert eventually(lambda: all(_cluster_is_ok(one) for one in self.nodes), DEADLINE)
        for client in clients:
            client.close()
        return node

    def remove_node(self, node: RedisServer, heir: RedisServer) -> None:
        """Gives its slots, without their keys, to `heir`. Its process remains, outside of the cluster."""
        clients = {one.port: connect(one.url) for one in self.nodes}
        node_id, heir_id = (execute(clients[one.port], "CLUSTER", "MYID") for one in (node, heir))
        slots = [(first, last) for first, last, primary, *_ in _slots(clients[heir.port]) if int(primary[1]) == node.port]
        for client in clients.values():
            with client.pipeline(transaction=False) as pipe:
                for first, last in slots:
                    for slot in range(int(first), int(last) + 1):
                        execute(pipe, "CLUSTER", "SETSLOT", slot, "NODE", heir_id)
                pipe.execute()
        execute(clients[heir.port], "CLUSTER", "BUMPEPOCH")
        for port, client in clients.items():
            if port != node.port:
                execute(client, "CLUSTER", "FORGET", node_id)
        execute(clients[node.port], "CLUSTER", "RESET", "SOFT")
        for client in clients.values():
            client.close()

    def primary_of(self, key: str) -> RedisServer:
        """The node with the key's slot, asked of any that replies."""
        for node in self.nodes:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", node.port), 1),
                connect(node.url) as client,
            ):
                slot = execute(client, "CLUSTER", "KEYSLOT", key)
                for first, last, primary, *_ in _slots(client):
                    if int(first) <= int(slot) <= int(last):
                        return next(node for node in self.nodes if node.port == int(primary[1]))
        raise LookupError(key)

    def fail_over(self, end: Callable[[RedisServer], None], key: str = "chat") -> RedisServer:
        """Ends the key's primary by `end`. Returns it once another node is the primary and the cluster is complete."""
        return self.fail_over_node(self.primary_of(key), end)

    def fail_over_node(self, old: RedisServer, end: Callable[[RedisServer], None]) -> RedisServer:
        end(old)
        others = [node for node in self.nodes if node is not old]
        assert eventually(
            lambda: all(self._has_replaced(node, old) for node in others if node.process.poll() is None), DEADLINE
        )
        return old

    def move_slots_with_keys(self, source: RedisServer, target: RedisServer) -> int:
        """Moves those slots of `source` that have keys, key by key. Returns their number."""
        with connect(source.url) as old, connect(target.url) as new:
            old_id, new_id = execute(old, "CLUSTER", "MYID"), execute(new, "CLUSTER", "MYID")
            slots = {int(execute(old, "CLUSTER", "KEYSLOT", key)) for key in old.scan_iter()}
            for slot in slots:
                execute(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
                execute(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
                while keys := execute(old, "CLUSTER", "GETKEYSINSLOT", slot, 1):
                    execute(old, "MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
                execute(new, "CLUSTER", "SETSLOT", slot, "NODE", new_id)
                execute(old, "CLUSTER", "SETSLOT", slot, "NODE", new_id)
        return len(slots)

    def _has_replaced(self, node: RedisServer, old: RedisServer) -> bool:
        with contextlib.suppress(Exception), connect(node.url) as client:
            return _cluster_is_ok(node) and all(int(primary[1]) != old.port for _, _, primary, *_ in _slots(client))
        return False


def execute(client: Client, *command: Any) -> Any:
    untyped: Any = client
    return untyped.execute_command(*command)


def count_subscribers(server: RedisServer | RedisSet, channel: str) -> int:
    return sum(dict(_lasting_client(node.url).pubsub_numsub(channel))[channel] for node in _nodes_of(server))


def count_connections(server: RedisServer | RedisSet) -> list[int]:
    """By server, without those of replicas and of this function."""
    counts = []
    for node in _nodes_of(server):
        with connect(node.url) as client:
            counts.append(sum("S" not in entry["flags"] and "M" not in entry["flags"] for entry in client.client_list()) - 1)
    return counts


def _nodes_of(server: RedisServer | RedisSet) -> list[RedisServer]:
    return server.nodes if isinstance(server, RedisSet) else [server]


@cache
def _lasting_client(url: str) -> Client:
    """For many short calls. It connects again by itself after a restart of the server."""
    return connect(url)


def is_primary(node: RedisServer) -> bool:
    with contextlib.suppress(Exception), connect(node.url) as client:
        return execute(client, "ROLE")[0] in {"master", b"master"}
    return False


def _new(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _bus_port(node: RedisServer) -> str:
    return node._options[node._options.index("--cluster-port") + 1]


def _has_replicas(node: RedisServer, number: int) -> bool:
    with contextlib.suppress(Exception), connect(node.url) as client:
        info: Any = client.info("replication")
        replicas = [info[f"slave{index}"] for index in range(info["connected_slaves"])]
        return len(replicas) == number and all(_has_loaded(replica["port"]) for replica in replicas)
    return False


def _has_loaded(port: int) -> bool:
    """The primary calls a replica online that is still loading the data."""
    with connect(f"redis://127.0.0.1:{port}") as client:
        info: Any = client.info("replication")
        return info["master_link_status"] == "up"


def _known_nodes(client: Client) -> int:
    return int(execute(client, "CLUSTER INFO")["cluster_known_nodes"])


def _replicates(client: Client, primary_id: str) -> bool:
    with contextlib.suppress(Exception):
        return bool(execute(client, "CLUSTER", "REPLICATE", primary_id))
    return False


def _cluster_is_ok(node: RedisServer) -> bool:
    with contextlib.suppress(Exception), connect(node.url) as client:
        info = execute(client, "CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384"
    return False


def _slots(client: Client) -> Iterator[Any]:
    """CLUSTER SLOTS as Redis sends it: first, last, primary, replicas."""
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_command("CLUSTER", "SLOTS")
        yield from connection.read_response()
    finally:
        client.connection_pool.release(connection)
