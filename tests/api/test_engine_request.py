"""Requests to the engine are cancelled when the browser disconnects or the process drains."""

import json
import signal
import socket
import threading

import pytest

from tests.api.engine_requests import ROUTES
from tests.live import Browser, Server, eventually, head
from tests.wire_server import HANG, WireServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
SILENT_ENGINES = {"before its response": [HANG], "in its response": [HEAD, HANG]}

pytestmark = pytest.mark.live


def open_request(server: Server, name: str) -> socket.socket:
    route = ROUTES[name]
    body = b"" if route.json is None else json.dumps(route.json).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sock.sendall(head(route.method, route.path, body=body) + body)
    return sock


@pytest.mark.parametrize("steps", SILENT_ENGINES.values(), ids=SILENT_ENGINES)
def test_a_disconnect_cancels_the_engine_request(start, kind, steps):
    names = ["chat", "history", "preferences", "prefer"]

    with WireServer(steps) as engine:
        server = start(kind, ENGINE_BASE_URL=engine.url)
        socks = [open_request(server, name) for name in names]
        assert engine.wait_for(lambda: len(engine.requests) == len(names), 15)
        for sock in socks:
            sock.close()

        assert engine.wait_for(lambda: engine.hung_up == len(names), 15)
        assert eventually(lambda: [line.get("status") for line in server.log_lines].count(499) == len(names), 15)


def test_a_drain_does_not_wait_for_the_engine(start):
    replies = []

    with WireServer([HANG]) as engine:
        server = start(ENGINE_BASE_URL=engine.url, DRAIN_SECONDS="2")

        def post() -> None:
            reply = Browser(server).request("POST", "/api/chat", {"message": "x"})
            replies.append((reply.status, reply.json()["code"]))

        thread = threading.Thread(target=post)
        thread.start()
        assert engine.wait_for(lambda: len(engine.requests) == 1, 15)

        assert server.stop(signal.SIGTERM) == 0
        thread.join(15)

    assert replies == [(503, "server_restarting")]
