"""Users of a real Redis, whose rules a test changes, and a cluster of real nodes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bff.ops.redis import Client, connect
from tests.live import eventually, free_port
from tests.redis_server import RedisServer

DOCUMENTED_RULES = "~chat:* &chat:* +@read +@write +@pubsub +@scripting +@connection +time +info"
"""As in docs/deployment.md."""
CLUSTER_RULES = "+wait +cluster|slots +cluster|shards"
"""Needed, too, behind Sentinels (`+wait`) and in a cluster."""


class RedisUser:
    def __init__(self, admin: Client, server: RedisServer) -> None:
        self._admin: Any = admin
        self.url = server.url.replace("redis://", "redis://chat:swordfish@")
        self.set_rules(DOCUMENTED_RULES)

    def set_rules(self, rules: str) -> None:
        """Replaces all rules; their order matters."""
        self._admin.execute_command("ACL", "SETUSER", "chat", "reset", "on", ">swordfish", "resetchannels", *rules.split())


@contextmanager
def cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Two nodes, each with half of the slots."""
    with ExitStack() as stack:
        nodes, bus_ports = [], []
        for name in ("a", "b"):
            (folder / name).mkdir()
            bus_ports.append(free_port())
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus_ports[-1]))
            nodes.append(stack.enter_context(RedisServer(folder / name, *options)))
        clients: list[Any] = [stack.enter_context(connect(node.url)) for node in nodes]
        clients[0].execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        clients[1].execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus_ports[1])
        for client in clients:
            assert eventually(lambda client=client: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", 20)
        yield nodes
