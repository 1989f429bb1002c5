"""What a user sees in each client, case by case: contract.mjs runs the same cases with all of them, on one server."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bff.engine.agents.demo import UNICODE
from tests.clients.conftest import HERE, node_or_skip
from tests.live import PROXY_SECRET, Server

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]

ERROR = {"text": "This goes ", "error": "The assistant could not answer. Please try again."}


def shown(text: str) -> dict[str, str]:
    return {"text": text}


EXPECTED: dict[str, Any] = {
    "answer": [shown("Hello, streaming world"), shown("and again")],
    "unicode": shown(UNICODE),
    "error": [ERROR, shown("after it")],
    "silence": shown("Silent for 1 s."),
    "tool": shown("For God so loved the world."),
    "stop": {"status": 202, "shown": shown("one "), "idle": True},
    "cuts": [shown("one two three")] * 12,
    "reload": {"before": shown("one two three"), "after": shown("one two three")},
    "tabs": {"before": [shown("one two"), shown("three four")], "after": [shown("one two"), shown("three four")]},
}
CLIENTS = (
    "ai-sdk",
    "workflow",
    "tanstack",
    "tanstack-hydrated",
    "ag-ui",
    "openai",
    "eventsource",
    "eventsource-client",
    "fetch-event-source",
)
CHATLESS = {("openai", case) for case in ("reload", "tabs")}
"""Cases that a client does not have: OpenAI's API knows no chats."""


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_shows_its_replies(run_node, client):
    expected = {case: shown for case, shown in EXPECTED.items() if (client, case) not in CHATLESS}

    assert run_node("contract.mjs", client, *expected) == expected


@pytest.fixture
def restarting_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Starts a server, and restarts it on its port; its messages outlive it."""
    settings = {
        "QUEUE_FILE": f"{tmp_path}/queue.db",
        "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db",
        "HEARTBEAT_SECONDS": "0.2",
    }
    servers: list[Server] = []

    def start() -> Server:
        port = servers[-1].port if servers else None
        if servers:
            servers[-1].stop(signal.SIGTERM)
        servers.append(Server("gunicorn", tmp_path / "server.log", port, **settings).wait_until_ready())
        return servers[-1]

    yield start
    servers[-1].stop()


@pytest.mark.slow
def test_every_client_gets_its_reply_over_a_restart(restarting_server):
    """Each is in the middle of a reply when the server restarts, and shows the whole of it, and the next one."""
    server = restarting_server()
    processes = {client: start_client(client, server.url) for client in CLIENTS}
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "restart\n"
    restarting_server()

    results = {client: finish_client(process) for client, process in processes.items()}

    assert results == {client: [shown("one two"), shown("and again")] for client in CLIENTS}


def start_client(client: str, url: str) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "SERVER_URL": url,
        "CLIENT": client,
        "HEADERS": json.dumps({"X-Proxy-Secret": PROXY_SECRET}),
    }
    command = [node_or_skip(), "contract.mjs", client, "restart"]
    return subprocess.Popen(
        command, cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish_client(process: subprocess.Popen[str]) -> Any:
    output, errors = process.communicate("restarted\n", timeout=50)
    assert process.returncode == 0, errors
    return json.loads(output.strip().split("\n")[-1])["restart"]
