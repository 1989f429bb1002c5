"""Several processes with one Redis, any of which may die: each message ends exactly once, without repeated text."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bff.broker.queue.base import MAX_RESTARTS
from bff.ops.redis import Client, connect
from tests.adopted import LOCK_SECONDS, engine_text
from tests.adopted import settings_of as adopted_settings
from tests.faults.engine import Engine, call_numbers, question, reply_words
from tests.faults.load import Clients, Stream, all_done, in_order
from tests.faults.reply_checks import add_readers, assert_sequential, assert_stored_as_received
from tests.live import Browser, Server, eventually, free_port, status_of, take
from tests.original_broker import OriginalBroker
from tests.redis_server import RedisServer
from tests.redis_sets import RedisSet

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
"""Repeats the test for this long, in `make soak`."""
HIGH_LIMITS = {"MAX_STREAMS_PER_USER": "1000", "MESSAGES_PER_MINUTE": "100000", "RUN_WORKER": "0"}
LONG_LEASE_SECONDS = "60"
"""Longer than any test."""
DEADLINE = 60.0
KILLS = 9
"""Some come within a second, so that no worker is up for a while."""

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


@pytest.fixture
def persistent_redis(tmp_path) -> Iterator[RedisServer]:
    """A Redis that persists its data."""
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as server:
        yield server


class Fleet:
    """Web processes and workers that share one Redis and one engine."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = {**HIGH_LIMITS, **settings}
        self._servers: list[Server] = []
        self.workers: list[Server] = []

    def web(self, processes: int = 1, **settings: str) -> Server:
        """Starts web processes behind one port."""
        return self._start("gunicorn", WEB_CONCURRENCY=str(processes), **settings)

    def worker(self) -> Server:
        self.workers.append(self._start("worker"))
        return self.workers[-1]

    def _start(self, kind: str, **settings: str) -> Server:
        log = self._folder / f"{kind}-{len(self._servers)}.log"
        self._servers.append(Server(kind, log, **{**self._settings, **settings}))
        return self._servers[-1]

    def wait_until_ready(self) -> None:
        for server in self._servers:
            if server.process.poll() is None:
                server.wait_until_ready()

    def kill_random_worker(self, rng: random.Random) -> None:
        """Kills a worker and starts another."""
        self.workers.pop(rng.randrange(len(self.workers))).kill(signal.SIGKILL)
        self.worker()

    def crash(self) -> None:
        for server in self._servers:
            server.stop(signal.SIGKILL)


also_adopted = pytest.mark.parametrize("adopts", [False, True], ids=["engine", "adopted"])


@pytest.fixture
def make_fleet(tmp_path, engine, clean_redis) -> Iterator[Callable[..., Fleet]]:
    fleets: list[Fleet] = []
    broker = OriginalBroker(lock_seconds=LOCK_SECONDS, reply=engine_text(engine.url))

    def make(redis: RedisServer | RedisSet = clean_redis, adopts: bool = False, **settings: str) -> Fleet:
        """`adopts`: with a broker in front of the engine whose events have no ids."""
        settings |= adopted_settings(broker) if adopts else {}
        fleets.append(Fleet(tmp_path, ENGINE_BASE_URL=engine.url, REDIS_URL=redis.url, **settings))
        return fleets[-1]

    with broker:
        yield make
        for fleet in fleets:
            fleet.crash()


def all_have_text(streams: list[Stream]) -> Callable[[], bool]:
    return lambda: all(stream.text for stream in streams)


def all_running(engine: Engine, streams: list[Stream]) -> Callable[[], bool]:
    return lambda: all(engine.calls[stream.message] for stream in streams)


def assert_ended_once(streams: list[Stream], engine: Engine) -> None:
    """Checks that each reply is complete or interrupted, and that its text comes from the last call of the engine."""
    for stream in streams:
        assert in_order(stream.events), stream.events
        assert stream.end in {"complete", "interrupted"}, (stream.message, stream.end, engine.calls[stream.message])
        calls = call_numbers(stream.text)
        if not calls:
            assert stream.end == "interrupted", stream.events
            continue
        assert calls == {engine.calls[stream.message]}, (stream.message, calls, engine.calls[stream.message])
        words = reply_words(stream.message, calls.pop())
        if stream.end == "complete":
            assert stream.text == "".join(words)
            assert stream.events[-1]["response"]["responses"] == ["".join(words)]
        else:
            assert "".join(words).startswith(stream.text)


def keys_without_expiry(client: Client) -> list[str]:
    return [key for key in client.scan_iter() if client.ttl(key) == -1]


# Killed processes


RANDOM_KILLS = {
    "asked once": ("clean_redis", False, False),
    "repeatable": ("clean_redis", True, False),
    "adopted": ("clean_redis", False, True),
    "sentinels": ("sentinels", False, False),
    "cluster": ("cluster", True, False),
}


@pytest.mark.slow
@pytest.mark.timeout(180 + 3 * SOAK_SECONDS)
@pytest.mark.parametrize(("form", "repeatable", "adopts"), RANDOM_KILLS.values(), ids=RANDOM_KILLS)
def test_messages_end_once_while_processes_are_killed_at_random(make_fleet, engine, request, form, repeatable, adopts):
    redis: RedisServer | RedisSet = request.getfixturevalue(form)
    redis.flush()
    fleet = make_fleet(redis, LEASE_SECONDS="2", ENGINE_REPEATABLE=str(int(repeatable)), adopts=adopts)
    users = 50 if SOAK_SECONDS and form == "clean_redis" and not adopts else 20
    web = fleet.web(2)
    for _ in range(3):
        fleet.worker()
    fleet.wait_until_ready()
    deadline = time.monotonic() + SOAK_SECONDS

    seed = 0
    while seed == 0 or time.monotonic() < deadline:
        seed += 1
        run_under_kills(fleet, web, engine, users, seed, assert_restarted if repeatable else assert_interrupted)

    with connect(redis.url) as client:
        assert eventually(lambda: not keys_without_expiry(client), 15), keys_without_expiry(client)
    print(f"{seed} times {10 * users} messages and {KILLS} kills, of workers and web processes")


def run_under_kills(
    fleet: Fleet, web: Server, engine: Engine, users: int, seed: int, assert_ends: Callable[[list[Stream]], None]
) -> None:
    rng = random.Random(seed)
    with Clients(web.port, seed) as clients:
        streams = [
            clients.send(question(f"{seed}/{user}/{number}", 6, interval=0.15, delay=0.15), f"user-{seed}-{user}")
            for number in range(10)
            for user in range(users)
        ]
        assert clients.wait_for(lambda: sum(bool(stream.text) for stream in streams) > 20, DEADLINE)
        assert clients.wait_for(lambda: sum(bool(stream.message_id) for stream in streams) > 6 * users, DEADLINE)
        tabs, plain_clients = add_readers(clients, streams)
        for number in range(KILLS):
            for tab in tabs[number::KILLS]:
                clients.reset(tab)
            if number % 3 == 2:
                with suppress(ProcessLookupError, IndexError):
                    os.kill(rng.choice(web.children), signal.SIGKILL)
            else:
                fleet.kill_random_worker(rng)
            clients.wait_for(all_done(streams), rng.uniform(0.3, 2))
        assert clients.wait_for(all_done(streams + tabs + plain_clients), DEADLINE)
        assert all(tab.end for tab in tabs), "resumed streams receive the end"

        assert_ended_once(streams, engine)
        assert_sequential(streams)
        assert_ends(streams)
        assert any(connection.outcome == "cut" for stream in streams for connection in stream.connections)
        assert_stored_as_received(clients, streams)


def assert_interrupted(streams: list[Stream]) -> None:
    ends = [stream.end for stream in streams]
    assert "interrupted" in ends, "some had sent output when their worker died"
    assert ends.count("complete") > 100
    assert not any(stream.restarts for stream in streams)


def assert_restarted(streams: list[Stream]) -> None:
    assert any(stream.restarts for stream in streams), "some had sent output when their worker died"
    for stream in streams:
        assert stream.end == "complete" or stream.restarts == MAX_RESTARTS, stream.events


@pytest.mark.slow
def test_a_worker_frozen_beyond_its_lease_cannot_write_after_waking(make_fleet, engine):
    fleet = make_fleet(LEASE_SECONDS="1")
    web, frozen = fleet.web(), fleet.worker()
    fleet.wait_until_ready()

    with Clients(web.port) as clients:
        spoken = [clients.send(question(f"spoken-{number}", 20, interval=0.3)) for number in range(5)]
        silent = [clients.send(question(f"silent-{number}", 5, delay=4)) for number in range(5)]
        assert clients.wait_for(all_have_text(spoken), DEADLINE)
        assert clients.wait_for(all_running(engine, silent), DEADLINE)
        frozen.freeze()
        alive = fleet.worker()
        assert clients.wait_for(all_done(spoken + silent), DEADLINE)
        assert {stream.end for stream in spoken} == {"interrupted"}
        assert {stream.end for stream in silent} == {"complete"}

        alive.kill(signal.SIGKILL)
        frozen.kill(signal.SIGCONT)
        woken = clients.send(question("woken", 3))
        assert clients.wait_for(all_done([woken]), DEADLINE), "it continues to work"
        assert eventually(lambda: frozen.log.count("has another worker now") == 10, DEADLINE), frozen.log

        assert_ended_once([*spoken, *silent, woken], engine)
        assert all(engine.calls[stream.message] == 2 for stream in silent)
        assert_stored_as_received(clients, spoken + silent)


# Redis outages


@pytest.mark.slow
@also_adopted
def test_replies_survive_restarts_of_redis(make_fleet, engine, persistent_redis, adopts):
    fleet = make_fleet(persistent_redis, LEASE_SECONDS=LONG_LEASE_SECONDS, adopts=adopts)
    web = fleet.web(2)
    fleet.worker()
    fleet.worker()
    fleet.wait_until_ready()

    with Clients(web.port) as clients:
        streams = [
            clients.send(question(f"{user}/{turn}", 10, interval=0.1, delay=0.2), f"user-{user}")
            for turn in range(3)
            for user in range(15)
        ]
        for spoken, number in ((5, signal.SIGTERM), (20, signal.SIGKILL)):
            assert clients.wait_for(lambda spoken=spoken: sum(bool(stream.text) for stream in streams) > spoken, DEADLINE)
            add_readers(clients, streams)
            persistent_redis.stop(number)
            persistent_redis.start()
        assert clients.wait_for(all_done(clients.streams), DEADLINE)

        assert_ended_once(streams, engine)
        assert {stream.end for stream in streams} == {"complete"}, "no worker died"
        assert_sequential(streams)
        assert_stored_as_received(clients, streams)


@pytest.mark.slow
def test_during_an_outage_of_redis_messages_are_refused_and_replies_wait(make_fleet, engine, persistent_redis):
    fleet = make_fleet(persistent_redis, LEASE_SECONDS="2")
    web = fleet.web(2)
    fleet.worker()
    fleet.wait_until_ready()

    with Clients(web.port) as clients:
        streams = [clients.send(question(f"spoken-{number}", 30, interval=0.1)) for number in range(10)]
        silent = [clients.send(question(f"silent-{number}", 5, delay=8)) for number in range(5)]
        assert clients.wait_for(all_have_text(streams), DEADLINE)
        assert clients.wait_for(all_running(engine, silent), DEADLINE)
        tabs = [clients.follow(stream) for stream in streams + silent]
        plain_clients = [clients.resend(stream, resumable=False) for stream in streams]
        assert clients.wait_for(all_have_text(tabs[: len(streams)] + plain_clients), DEADLINE)
        persistent_redis.stop(signal.SIGKILL)
        with Browser(web).say("now?") as reply:
            assert (reply.status, reply.json()["code"]) == (503, "upstream_unavailable")
            assert int(reply.headers["Retry-After"]) > 0
        followed = [stream.connections[0] for stream in streams]
        assert clients.wait_for(lambda: all(connection.outcome for connection in followed), DEADLINE)
        assert {connection.outcome for connection in followed} == {"clean"}
        assert not any(stream.end for stream in streams)
        persistent_redis.start()
        assert clients.wait_for(all_done(streams + silent + tabs + plain_clients), DEADLINE)

        assert_ended_once(streams + silent + tabs, engine)
        assert status_of(Browser(web).say("now")) == 200


def test_processes_do_not_start_without_redis(tmp_path):
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    servers = [Server(kind, tmp_path / f"{kind}.log", REDIS_URL=url, BROKER_API_KEY="k" * 32) for kind in KINDS]

    for server in servers:
        assert server.process.wait(30) == 3, server.log
        assert server.log.count("REDIS_URL='redis://127.0.0.1:") == 1, server.log
        assert "s3cret" not in server.log
        assert "Booting worker" not in server.log
        assert "Traceback" not in server.log


KINDS = ("gunicorn", "broker", "worker")


# Graceful stops


@pytest.mark.slow
def test_a_stopping_worker_finishes_what_it_can_and_requeues_the_rest(make_fleet, engine):
    fleet = make_fleet(LEASE_SECONDS=LONG_LEASE_SECONDS, DRAIN_SECONDS="4")
    web, old, successor = fleet.web(), fleet.worker(), fleet.worker()
    fleet.wait_until_ready()
    successor.freeze()

    with Clients(web.port) as clients:
        short = [clients.send(question(f"short-{number}", 5, interval=0.1)) for number in range(5)]
        endless = [clients.send(question(f"endless-{number}", 1000, interval=0.1)) for number in range(5)]
        silent = [clients.send(question(f"silent-{number}", 5, delay=4)) for number in range(5)]
        assert clients.wait_for(all_have_text(short + endless), DEADLINE)
        assert clients.wait_for(all_running(engine, silent), DEADLINE)
        signalled = time.monotonic()
        old.kill(signal.SIGTERM)
        successor.kill(signal.SIGCONT)
        assert old.process.wait(20) == 0
        assert time.monotonic() - signalled < 9
        assert clients.wait_for(all_done(short + endless + silent), DEADLINE)

    assert_ended_once(short + endless + silent, engine)
    assert {stream.end for stream in short} == {"complete"}
    assert {stream.end for stream in endless} == {"interrupted"}
    assert {stream.end for stream in silent} == {"complete"}
    assert all(engine.calls[stream.message] == 2 for stream in silent)


@pytest.mark.slow
@also_adopted
def test_a_stopping_web_process_requeues_the_messages_of_its_worker(make_fleet, engine, adopts):
    fleet = make_fleet(LEASE_SECONDS=LONG_LEASE_SECONDS, DRAIN_SECONDS="4", RUN_WORKER="1", adopts=adopts)
    old = fleet.web()
    fleet.wait_until_ready()

    with Clients(old.port) as clients:
        short = [clients.send(question(f"short-{number}", 5, interval=0.1)) for number in range(5)]
        endless = [clients.send(question(f"endless-{number}", 1000, interval=0.1)) for number in range(5)]
        silent = [clients.send(question(f"silent-{number}", 5, delay=4)) for number in range(5)]
        assert clients.wait_for(all_have_text(short + endless), DEADLINE)
        assert clients.wait_for(all_running(engine, silent), DEADLINE)
        clients.port = fleet.web().port
        fleet.wait_until_ready()
        signalled = time.monotonic()
        old.kill(signal.SIGTERM)
        assert old.process.wait(30) == 0
        assert time.monotonic() - signalled < 15
        assert clients.wait_for(all_done(short + endless + silent), DEADLINE)

    assert_ended_once(short + endless + silent, engine)
    assert {stream.end for stream in short + silent} == {"complete"}
    assert {stream.end for stream in endless} == {"interrupted"}


# One user on several processes


@pytest.fixture
def browsers(request, start, clean_redis) -> list[Browser]:
    """One user's browsers at three web processes, one of which has a worker."""
    kind = getattr(request, "param", "gunicorn")
    options = {"REDIS_URL": clean_redis.url, "MAX_STREAMS_PER_USER": "3", "MESSAGES_PER_MINUTE": "4", "DRAIN_SECONDS": "1"}
    return [Browser(start(kind, RUN_WORKER=str(int(number == 0)), **options)) for number in range(3)]


@pytest.mark.parametrize("browsers", ["gunicorn", "adopted"], indirect=True)
def test_a_reply_can_be_followed_and_stopped_in_other_processes(browsers):
    first, second, third = browsers
    posted = first.say("/slow 60 one two three four five")
    followed = second.follow(posted.message_id)
    assert next(frame for frame in followed.frames() if "one" in frame)
    assert [position["message_id"] for position in third.active()] == [posted.message_id]

    assert status_of(third.stop(posted.message_id)) == 202

    frames = take(posted)
    assert '"stopped"' in frames[-1]
    assert take(followed)[-1] == frames[-1]
    assert take(third.follow(posted.message_id)) == frames
    assert first.active() == []


def test_a_users_limits_apply_across_processes(browsers):
    replies = [browser.say("/slow 60 one two") for browser in browsers]

    assert [status_of(browser.say("one too many")) for browser in browsers] == [429, 429, 429]

    replies[0].leave()
    assert eventually(lambda: status_of(browsers[1].follow(replies[1].message_id)) == 200, DEADLINE)
    for reply in replies[1:]:
        reply.leave()
    assert eventually(lambda: status_of(browsers[2].follow(replies[2].message_id)) == 200, DEADLINE)
    assert [status_of(browser.say("one message too many")) for browser in browsers] == [429, 429, 429]


def test_memory_and_redis_send_the_same_bytes(start, clean_redis):
    memory, shared = start("gunicorn"), start("gunicorn", REDIS_URL=clean_redis.url)

    for message in ("hello, you", "/unicode", "/tool", "/error", "/cut", "/big 200", "/help", "/slow 0.3 a b c"):
        assert response_bytes(memory, message) == response_bytes(shared, message)


def response_bytes(server: Server, message: str) -> tuple[bytes, bytes]:
    """The bytes of the posted stream and of a later one."""
    browser = Browser(server)
    with browser.request("POST", "/api/chat/stream?ids=0", {"message": message}, X_Request_ID="one") as reply:
        posted, message_id = reply.read(), reply.message_id
    with browser.request("GET", f"/api/chat/stream/{message_id}?ids=0", X_Request_ID="one") as reply:
        followed = b"".join(line for line in reply.read().splitlines(True) if not line.startswith(b"retry:"))
    return posted, followed
