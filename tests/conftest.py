import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import trustme
from hypothesis import settings

from bff.http import waiting
from bff.http.waiting import Waiter
from bff.upstream.http import sessions
from tests.adopted import adoptable_broker
from tests.adopted import settings_of as adopted_settings
from tests.live import Server, free_port
from tests.original_broker import OriginalBroker
from tests.redis_server import RedisServer

# The machine may be busy: Hypothesis measures examples, not the clock.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


SERVERS = {"start", "share", "redis", "appendonly", "postgres", "guarded"}
"""The fixtures that start a process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        named = {param for param in params if isinstance(param, str)}  # A parameter may name a fixture.
        if SERVERS & {*getattr(item, "fixturenames", ()), *named}:
            item.add_marker(pytest.mark.servers)


class Servers:
    """Those of a test, or of a module. A "fleet" is two web processes behind one port and three workers, around one Redis.

    "adopted" and "adopted fleet": in front of a broker that numbers nothing (tests/adopted.py).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Server] = []
        self._brokers: dict[tuple[str, str], OriginalBroker] = {}

    def start(self, kind: str, redis: Callable[[], RedisServer], **options: str) -> Server:
        if kind.startswith("adopted"):
            options = {"QUEUE_FILE": f"{self._folder}/queue-{len(self._started)}.db"} | self._adopted(options)
        if kind.endswith("fleet"):
            return self._fleet(**options | {"REDIS_URL": redis().url})
        return self._one("gunicorn" if kind == "adopted" else kind, **options).wait_until_ready()

    def _fleet(self, **options: str) -> Server:
        workers = [self._one("worker", **options) for _ in range(3)]
        web = self._one("gunicorn", WEB_CONCURRENCY="2", RUN_WORKER="0", **options)
        for server in workers:
            server.wait_until_ready()
        return web.wait_until_ready()

    def _adopted(self, options: dict[str, str]) -> dict[str, str]:
        """Those with a broker that says what the same server's engine would, and outlives it."""
        key = options.get("ECHO_WORD_SECONDS", "0.002"), options.get("ENGINE_BASE_URL", "")
        if key not in self._brokers:
            self._brokers[key] = adoptable_broker(*key).__enter__()
        return options | adopted_settings(self._brokers[key])

    def _one(self, kind: str, **options: str) -> Server:
        self._started.append(Server(kind, self._folder / f"{kind}-{len(self._started)}.log", **options))
        return self._started[-1]

    def stop(self) -> None:
        for server in self._started:
            server.kill(signal.SIGKILL if server.kind == "worker" else signal.SIGINT)
        for server in self._started:
            server.stop()
        for broker in self._brokers.values():
            broker.__exit__()


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whom the apps in this process believe: to load all there are, for each service of an app, takes longer than its rest."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    sessions.DEFAULT_CA_BUNDLE_PATH = str(path)


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """`start("gunicorn", HEARTBEAT_SECONDS="0.2")`: a server process, or a fleet, stopped after the test."""
    servers = Servers(tmp_path)

    def begin(kind: str = "gunicorn", **options: str) -> Server:
        return servers.start(kind, lambda: request.getfixturevalue("clean_redis"), **options)

    yield begin
    servers.stop()


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """As `start`, but what a module has once asked for it is given again: to tests that neither stop nor count it.

    Each has a database of its own, and a fleet its own Redis. A test's users are its own: see `user`.
    """
    folder, shared = tmp_path_factory.mktemp("shared"), {}
    servers = Servers(folder)

    def begin(kind: str = "gunicorn", **options: str) -> Server:
        key = (kind, *sorted(options.items()))
        if key not in shared:
            settings = {"DATABASE_URL": f"sqlite:///{folder}/{len(shared)}.db", "MESSAGES_PER_MINUTE": "10000"} | options
            shared[key] = servers.start(kind, redis, **settings)
        return shared[key]

    with contextlib.ExitStack() as stack:

        def redis() -> RedisServer:
            return stack.enter_context(RedisServer(tmp_path_factory.mktemp("redis")))

        stack.callback(servers.stop)
        yield begin


@pytest.fixture(scope="module")
def port() -> int:
    """For a service that is another one in each test of a module, behind a server that they share."""
    return free_port()


_users = count()


@pytest.fixture
def user() -> str:
    """Nobody else's name."""
    return f"user-{next(_users)}"


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


@pytest.fixture(autouse=True)
def log_level() -> None:
    """An app sets the level for its whole process, which may be the process of other tests."""
    root = logging.getLogger()
    root.setLevel(min(root.level, logging.WARNING))


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    waiter = waiting.new_waiter()
    yield waiter
    waiter.close()


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the app is served: greenlets, or plain threads. Tests of one kind follow each other, as some share a server."""
    return str(request.param)
