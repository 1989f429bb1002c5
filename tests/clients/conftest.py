"""One server for all clients, and one run of each: its cases are other users, side by side."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cutting import CuttingLine
from tests.live import PROXY_SECRET, Server
from tests.missing import missing
from tests.web.node import find_node

HERE = Path(__file__).parent
SECONDS = 50
"""For all cases of a client; a busy machine needs a few."""


@cache
def node_or_skip() -> str:
    """Where the program is, with the packages beside it. A machine without them skips; CI fails."""
    node = find_node()
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
def line(server: Server) -> Iterator[CuttingLine]:
    """The same server, over a line that breaks."""
    with CuttingLine(server.port) as line:
        yield line


@pytest.fixture(scope="session")
def run_node(server: Server, line: CuttingLine) -> Callable[[str], dict[str, Any]]:
    """What each case of a script saw, by its name."""

    def run(script: str) -> dict[str, Any]:
        environment = {
            "PATH": os.environ["PATH"],
            "SERVER_URL": server.url,
            "CUTTING_URL": line.url,
            "CLIENT": Path(script).stem,
            "HEADERS": json.dumps({"X-Proxy-Secret": PROXY_SECRET}),
        }
        command = [node_or_skip(), script]
        done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        results: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
        return results

    return run
