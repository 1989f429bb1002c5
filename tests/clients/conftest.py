"""One server for all clients. Each client script runs once; its cases run concurrently, each as a user of its own."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cutting import CuttingProxy
from tests.live import PROXY_SECRET, Server
from tests.missing import missing
from tests.web.node import find_node
from tests.wire_server import LAST_CHUNK, WireServer, chunk, stream_head

HERE = Path(__file__).parent
SCRIPT_SECONDS = 50
"""Timeout for all cases of a script."""


CLIENTS_NODE_VERSION = 22
"""The oldest Node for which the clients' current versions are made."""


@cache
def node_or_skip() -> str:
    """Returns the path of Node. If Node or the packages are missing, skips; fails in CI."""
    node = find_node(CLIENTS_NODE_VERSION)
    if node is None or not (HERE / "node_modules" / ".package-lock.json").exists():
        missing("Node, or what its clients are made of,")
    return node


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("clients") / "server.log"
    server = Server("gunicorn", log, HEARTBEAT_SECONDS="0.2").wait_until_ready()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cutting_proxy(server: Server) -> Iterator[CuttingProxy]:
    """The same server behind a proxy that resets connections."""
    with CuttingProxy(server.port) as proxy:
        yield proxy


TRUNCATED = [
    {"type": "reasoning", "text": "The user wants "},
    {"type": "reasoning", "text": "a verse."},
    {"type": "progress", "text": "In the "},
    {"type": "progress", "text": "beginning"},
    {
        "type": "complete",
        "response": {
            "responses": ["In the beginning"],
            "truncated": True,
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        },
    },
]
"""The events of an engine whose model reasons, and whose reply is cut short by the model's own limit."""


@pytest.fixture(scope="session")
def truncating_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose engine gives every message the reply TRUNCATED."""
    log = tmp_path_factory.mktemp("truncating") / "server.log"
    frames = [chunk(f"data: {json.dumps(event)}\n\n".encode()) for event in TRUNCATED]
    with WireServer([stream_head(), *frames, LAST_CHUNK]) as engine:
        server = Server("gunicorn", log, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="k" * 32).wait_until_ready()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def run_node(server: Server, truncating_server: Server, cutting_proxy: CuttingProxy) -> Callable[..., dict[str, Any]]:
    """Runs a script; returns the results of its cases, by name."""

    def run(script: str, *arguments: str) -> dict[str, Any]:
        environment = {
            "PATH": os.environ["PATH"],
            "SERVER_URL": server.url,
            "CUTTING_URL": cutting_proxy.url,
            "TRUNCATING_URL": truncating_server.url,
            "CLIENT": "-".join([Path(script).stem, *arguments[:1]]),
            "HEADERS": json.dumps({"X-Proxy-Secret": PROXY_SECRET}),
        }
        command = [node_or_skip(), script, *arguments]
        done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=SCRIPT_SECONDS)
        assert done.returncode == 0, done.stderr
        results: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
        return results

    return run
