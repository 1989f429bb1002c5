from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.live import Server

# The machine may be busy: Hypothesis measures examples, not the clock.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`start("gunicorn", HEARTBEAT_SECONDS="0.2")`: a server process, stopped after the test."""
    servers: list[Server] = []

    def begin(kind: str = "gunicorn", **options: str) -> Server:
        server = Server(kind, tmp_path / f"{kind}-{len(servers)}.log", **options)
        servers.append(server)
        return server.wait_until_ready()

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture(params=["gunicorn", "flask"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the app is served: greenlets, or plain threads."""
    return str(request.param)
