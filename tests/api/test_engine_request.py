"""Whoever waits for the engine and leaves is not waited for; and a deploy does not wait for the engine either."""

import json
import signal
import socket
import threading

import pytest

from tests.api.engine_requests import DOORS
from tests.live import Browser, Server, eventually, head
from tests.wire_server import HANG, WireServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
SILENT = {"before its answer": [HANG], "in its answer": [HEAD, HANG]}

pytestmark = pytest.mark.live


def waiting(server: Server, name: str) -> socket.socket:
    door = DOORS[name]
    body = b"" if door.content is None else json.dumps(door.content).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sock.sendall(head(door.method, door.path, body=body) + body)
    return sock


@pytest.mark.parametrize("steps", SILENT.values(), ids=SILENT)
def test_a_browser_that_leaves_lets_go_of_the_engine(start, kind, steps):
    doors = ["chat", "history", "preferences", "prefer"]

    with WireServer(steps) as engine:
        server = start(kind, ENGINE_BASE_URL=engine.url)
        socks = [waiting(server, door) for door in doors]
        assert engine.wait_for(lambda: len(engine.requests) == len(doors), 15)
        for sock in socks:
            sock.close()

        assert engine.wait_for(lambda: engine.hung_up == len(doors), 15)
        assert eventually(lambda: [line.get("status") for line in server.log_lines].count(499) == len(doors), 15)


def test_a_deploy_does_not_wait_for_the_engine(start):
    answers = []

    with WireServer([HANG]) as engine:
        server = start(ENGINE_BASE_URL=engine.url, DRAIN_SECONDS="2")

        def ask() -> None:
            reply = Browser(server).request("POST", "/api/chat", {"message": "x"})
            answers.append((reply.status, reply.json()["code"]))

        asking = threading.Thread(target=ask)
        asking.start()
        assert engine.wait_for(lambda: len(engine.requests) == 1, 15)

        assert server.stop(signal.SIGTERM) == 0
        asking.join(15)

    assert answers == [(503, "server_restarting")]
