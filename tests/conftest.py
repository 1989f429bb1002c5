import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bff.ops import hub
from bff.ops.hub import Watch
from tests.live import Server
from tests.redis_server import RedisServer

# The machine may be busy: Hypothesis measures examples, not the clock.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


SERVERS = {"start", "redis", "appendonly", "postgres"}
"""The fixtures that start a process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        named = {param for param in params if isinstance(param, str)}  # A parameter may name a fixture.
        if SERVERS & {*getattr(item, "fixturenames", ()), *named}:
            item.add_marker(pytest.mark.servers)


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """`start("gunicorn", HEARTBEAT_SECONDS="0.2")`: a server process, stopped after the test.

    A "fleet" is two web processes behind one port and three workers, around one Redis.
    """
    servers: list[Server] = []

    def one(kind: str, **options: str) -> Server:
        servers.append(Server(kind, tmp_path / f"{kind}-{len(servers)}.log", **options))
        return servers[-1]

    def begin(kind: str = "gunicorn", **options: str) -> Server:
        if kind != "fleet":
            return one(kind, **options).wait_until_ready()
        options["REDIS_URL"] = request.getfixturevalue("clean_redis").url
        workers = [one("worker", **options) for _ in range(3)]
        web = one("gunicorn", WEB_CONCURRENCY="2", RUN_WORKER="0", **options)
        for server in workers:
            server.wait_until_ready()
        return web.wait_until_ready()

    yield begin
    for server in servers:
        server.kill(signal.SIGKILL if server.kind == "worker" else signal.SIGINT)
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests that leave it as it was, but for its keys."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def clean_redis(redis: RedisServer) -> RedisServer:
    redis.flush()
    return redis


@pytest.fixture(scope="session")
def appendonly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("appendonly"), "--appendonly", "yes")
    yield server
    server.stop()


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = hub.watch()
    yield watch
    watch.close()


@pytest.fixture(params=["gunicorn", "flask"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the app is served: greenlets, or plain threads."""
    return str(request.param)
