import contextlib
import gc
import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis.utils
import trustme
from hypothesis import settings
from redis._parsers.commands import CommandsParser
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from bff.engine.agents import registry
from bff.http import waiting
from bff.http.waiting import Waiter
from bff.upstream import reconnect
from bff.upstream.http import sessions
from tests.adopted import adoptable_broker
from tests.adopted import settings_of as adopted_settings
from tests.live import Server, free_port
from tests.original_broker import OriginalBroker
from tests.redis_server import RedisServer
from tests.redis_sets import Cluster, SentinelSet

# No deadline per example, as the machine may be busy.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def compile_routes_once() -> None:
    """Reuses the code that Werkzeug compiles for a route in all apps: compiling it takes most of the time to create an app."""
    compile_builder, compiled = Rule._compile_builder, {}

    def cached(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        if rule.defaults:  # The code has their values.
            return compile_builder(rule, append_unknown)
        key = (rule.rule, tuple(rule._trace), append_unknown)
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    Rule._compile_builder = cached


def parse_commands_once() -> None:
    """Reuses the table of Redis's commands in all clients of a cluster: parsing it takes 0.1 s. All servers here are alike."""
    initialize, commands = CommandsParser.initialize, {}

    def cached(parser: CommandsParser, client: object) -> None:
        if not commands:
            initialize(parser, client)
            commands.update(parser.commands)
        parser.commands = commands.copy()

    CommandsParser.initialize = cached


def find_entry_points_once() -> None:
    """Looks for agents in installed packages once for each `sys.path`: that takes half the time to create an app."""
    find = cache(lambda group, _: entry_points(group=group))
    registry.entry_points = lambda group: find(group, tuple(sys.path))


_open_responses: dict[int, TestResponse] = {}


def remember_open_responses() -> None:
    initialize = TestResponse.__init__

    def remembered(response: TestResponse, *args: Any, **kwargs: Any) -> None:
        initialize(response, *args, **kwargs)
        _open_responses[id(response)] = response
        response.call_on_close(lambda: _open_responses.pop(id(response), None))

    TestResponse.__init__ = remembered


compile_routes_once()
remember_open_responses()
find_entry_points_once()
parse_commands_once()
redis.utils.get_lib_version = cache(redis.utils.get_lib_version)
"""It parses the package's metadata for each new connection, which takes longer than all the rest of connecting."""


SERVERS = {"start", "share", "redis", "appendonly", "sentinels", "cluster", "distributed", "postgres", "guarded"}
"""Fixtures that start a server process."""


FURTHER_DEPLOYMENTS = {
    *("flask", "counted-flask", "fleet", "adopted", "adopted fleet", "gunicorn and a broker"),
    *("sentinels", "cluster", "appendonly", "postgresql"),
}
"""Parameters of tests that run in the default deployment as well, or that are about such a deployment."""


THRESHOLDS = (5_000, 10, 100)
"""Of the garbage collector: with the defaults, it takes a seventh of the CPU time."""
gc.disable()  # During collection, which leaves no garbage.


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skips modules of which all tests would be deselected, such as those marked `live` with `-m "not live"`."""
    excluded = re.findall(r"\bnot (\w+)", config.option.markexpr)
    if not excluded or collection_path.suffix != ".py":
        return None
    marked = rf"(?m)^pytestmark = .*\bmark\.({'|'.join(excluded)})\b"
    return True if re.search(marked, collection_path.read_text()) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = {param for param in params if isinstance(param, str)}  # A parameter may be the name of a fixture.
        if SERVERS & {*getattr(item, "fixturenames", ()), *names}:
            item.add_marker(pytest.mark.servers)
        if FURTHER_DEPLOYMENTS & names:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from visiting thousands of collected tests and modules again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(*THRESHOLDS)


class Servers:
    """Server processes of a test or a module. A "fleet" is two web processes on one port and three workers, with one Redis.

    "adopted" and "adopted fleet" use an external broker whose events have no ids (tests/adopted.py).
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
        return self._create("gunicorn" if kind == "adopted" else kind, **options).wait_until_ready()

    def _fleet(self, **options: str) -> Server:
        workers = [self._create("worker", **options) for _ in range(3)]
        web = self._create("gunicorn", WEB_CONCURRENCY="2", RUN_WORKER="0", **options)
        for server in workers:
            server.wait_until_ready()
        return web.wait_until_ready()

    def _adopted(self, options: dict[str, str]) -> dict[str, str]:
        """Adds a broker that replies as the server's own engine would."""
        key = options.get("ECHO_WORD_SECONDS", "0.002"), options.get("ENGINE_BASE_URL", "")
        if key not in self._brokers:
            self._brokers[key] = adoptable_broker(*key).__enter__()
        return options | adopted_settings(self._brokers[key])

    def _create(self, kind: str, **options: str) -> Server:
        self._started.append(Server(kind, self._folder / f"{kind}-{len(self._started)}.log", **options))
        return self._started[-1]

    def stop(self) -> None:
        for server in self._started:
            server.crash()
        for broker in self._brokers.values():
            broker.__exit__()


@pytest.fixture(scope="session", autouse=True)
def small_ca_bundle(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Makes apps in this process trust one CA only: loading the full bundle takes most of the time to create an app."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    sessions.DEFAULT_CA_BUNDLE_PATH = str(path)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that nobody trusts by default."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the authority's certificate."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="session", autouse=True)
def short_reconnects() -> None:
    """Makes apps in this process give up a broker within a second, not after a minute."""
    reconnect.RECONNECT_SECONDS, reconnect.REOPEN_SECONDS, reconnect.MIN_REOPEN_SECONDS = 0.01, 0.3, 0.3


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """`start("gunicorn", HEARTBEAT_SECONDS="0.2")`: a server process, or a fleet, stopped after the test."""
    servers = Servers(tmp_path)

    def start_server(kind: str = "gunicorn", **options: str) -> Server:
        return servers.start(kind, lambda: request.getfixturevalue("clean_redis"), **options)

    yield start_server
    servers.stop()


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Like `start`, but a module's tests share servers with equal options. The tests must not stop them or rely on totals.

    Each server has a database of its own, and a fleet its own Redis. Each test uses its own users: see `user`.
    """
    folder, shared = tmp_path_factory.mktemp("shared"), {}
    servers = Servers(folder)

    def start_server(kind: str = "gunicorn", **options: str) -> Server:
        key = (kind, *sorted(options.items()))
        if key not in shared:
            settings = {"DATABASE_URL": f"sqlite:///{folder}/{len(shared)}.db", "MESSAGES_PER_MINUTE": "10000"} | options
            shared[key] = servers.start(kind, redis, **settings)
        return shared[key]

    with contextlib.ExitStack() as stack:

        def redis() -> RedisServer:
            return stack.enter_context(RedisServer(tmp_path_factory.mktemp("redis")))

        stack.callback(servers.stop)
        yield start_server


@pytest.fixture(scope="module")
def port() -> int:
    """The port of an upstream that each test of a module replaces, behind a shared server."""
    return free_port()


_users = count()


@pytest.fixture
def user() -> str:
    """A user name that is unique in the test run."""
    return f"user-{next(_users)}"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Shared by all tests; they change nothing but keys."""
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


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    """Shared by all tests; one that ends a server starts it again."""
    with SentinelSet(tmp_path_factory.mktemp("sentinels")) as sentinels:
        yield sentinels


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """As `sentinels`."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def log_level() -> None:
    """Makes sure that warnings are logged: an app of an earlier test may have raised the level."""
    root = logging.getLogger()
    root.setLevel(min(root.level, logging.WARNING))


@pytest.fixture(autouse=True)
def close_responses() -> Iterator[None]:
    """Closes what the test's clients left open, so that the garbage collector warns of no socket in a later test."""
    yield
    for response in list(_open_responses.values()):
        response.close()


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    waiter = waiting.new_waiter()
    yield waiter
    waiter.close()


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def kind(request: pytest.FixtureRequest) -> str:
    """The server: gunicorn (greenlets) or Flask's (threads). With module scope, so that tests can share servers."""
    return str(request.param)
