import socket

import gevent
import pytest
from gevent.baseserver import BaseServer
from gevent.server import StreamServer

from bff.ops import accepting


class CountingServer(StreamServer):
    """Counts the connections accepted in each turn of the event loop."""

    turns: list[int]

    def _do_read(self) -> None:
        self.turns.append(0)
        super()._do_read()

    def do_read(self):
        if accepted := super().do_read():
            self.turns[-1] += 1
        return accepted


@pytest.mark.parametrize(
    ("connections", "seconds", "accepted"),
    [(4, 0.005, [1, 1, 1, 1]), (30, 1 / 16, [1, 6, 20, 3]), (60, 10, [1, 20, 20, 19])],
    ids=["short turns", "long turns", "very long turns"],
)
def test_connections_are_accepted_one_by_one_unless_turns_take_long(monkeypatch, connections, seconds, accepted):
    monkeypatch.setattr(BaseServer, "max_accept", BaseServer.max_accept)
    accepting.limit_accepts()
    now = 100.0
    monkeypatch.setattr(accepting, "monotonic", lambda: now)

    def handle(*_) -> None:
        nonlocal now
        now += seconds

    server = CountingServer(("127.0.0.1", 0), handle)
    server.turns = []
    server.init_socket()
    clients = [socket.create_connection(server.address) for _ in range(connections)]
    with server:
        server.start()
        while sum(server.turns) < connections:
            gevent.sleep(0)
    for client in clients:
        client.close()

    assert server.turns == accepted
