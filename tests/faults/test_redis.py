"""Many processes around one Redis, and any of them dies: each message still ends, once, and says nothing twice."""

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
from tests.faults.engine import Engine, answer, askings, question
from tests.faults.load import Crowd, Stream, all_over, in_order
from tests.faults.verdicts import assert_kept_as_they_were_told, assert_one_after_the_other, more_readers
from tests.live import Browser, Server, eventually, free_port, status_of, take
from tests.original_broker import OriginalBroker
from tests.redis_server import RedisServer

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
"""`make soak`: for so long, and not once only."""
ROOM = {"MAX_STREAMS_PER_USER": "1000", "MESSAGES_PER_MINUTE": "100000", "RUN_WORKER": "0"}
LONG = "60"
"""A lease that does not end while a test runs."""
DEADLINE = 60.0
KILLS = 9
"""Some within a second, so that all workers are gone for a while."""

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture
def lasting(tmp_path) -> Iterator[RedisServer]:
    """A Redis whose memory outlives it."""
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as server:  # Else a busy disk delays its writing.
        yield server


class Fleet:
    """Web processes and workers, all around one Redis and one engine."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = {**ROOM, **settings}
        self._servers: list[Server] = []
        self.workers: list[Server] = []

    def web(self, processes: int = 1, **settings: str) -> Server:
        """All of them behind one port."""
        return self._begin("gunicorn", WEB_CONCURRENCY=str(processes), **settings)

    def worker(self) -> Server:
        self.workers.append(self._begin("worker"))
        return self.workers[-1]

    def _begin(self, kind: str, **settings: str) -> Server:
        log = self._folder / f"{kind}-{len(self._servers)}.log"
        self._servers.append(Server(kind, log, **{**self._settings, **settings}))
        return self._servers[-1]

    def wait_until_ready(self) -> None:
        for server in self._servers:
            if server.process.poll() is None:
                server.wait_until_ready()

    def kill_a_worker(self, chance: random.Random) -> None:
        """Another one takes its place."""
        self.workers.pop(chance.randrange(len(self.workers))).kill(signal.SIGKILL)
        self.worker()

    def crash(self) -> None:
        for server in self._servers:
            server.stop(signal.SIGKILL)


also_adopted = pytest.mark.parametrize("adopts", [False, True], ids=["engine", "adopted"])


@pytest.fixture
def fleet(tmp_path, engine, clean_redis) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []
    broker = OriginalBroker(lock_seconds=LOCK_SECONDS, reply=engine_text(engine.url))

    def make(redis: RedisServer = clean_redis, adopts: bool = False, **settings: str) -> Fleet:
        """`adopts`: before the engine there is a broker that numbers nothing."""
        settings |= adopted_settings(broker) if adopts else {}
        made.append(Fleet(tmp_path, ENGINE_BASE_URL=engine.url, REDIS_URL=redis.url, **settings))
        return made[-1]

    with broker:
        yield make
        for one in made:
            one.crash()


def all_speak(streams: list[Stream]) -> Callable[[], bool]:
    return lambda: all(stream.text for stream in streams)


def running(engine: Engine, streams: list[Stream]) -> Callable[[], bool]:
    return lambda: all(engine.asked[stream.message] for stream in streams)


def assert_ended_once(streams: list[Stream], engine: Engine) -> None:
    """Each was answered wholly, or ended as interrupted; what counts of it was said the last time that it was asked for."""
    for stream in streams:
        assert in_order(stream.events), stream.events
        assert stream.end in {"complete", "interrupted"}, (stream.message, stream.end, engine.asked[stream.message])
        said_in = askings(stream.text)
        if not said_in:
            assert stream.end == "interrupted", stream.events
            continue
        assert said_in == {engine.asked[stream.message]}, (stream.message, said_in, engine.asked[stream.message])
        words = answer(stream.message, said_in.pop())
        if stream.end == "complete":
            assert stream.text == "".join(words)
            assert stream.events[-1]["response"]["responses"] == ["".join(words)]
        else:
            assert "".join(words).startswith(stream.text)


def lasting_keys(client: Client) -> list[str]:
    return [key for key in client.scan_iter() if client.ttl(key) == -1]


# Killed.


RANDOM_KILLS = ["asked once", "repeatable", "adopted"]


@pytest.mark.timeout(180 + 3 * SOAK_SECONDS)
@pytest.mark.parametrize(("repeatable", "adopts"), [(False, False), (True, False), (False, True)], ids=RANDOM_KILLS)
def test_processes_that_are_killed_at_random_cost_no_message_its_end(fleet, engine, clean_redis, repeatable, adopts):
    around = fleet(LEASE_SECONDS="2", ENGINE_REPEATABLE=str(int(repeatable)), adopts=adopts)
    users = 20 if adopts else 50
    web = around.web(2)
    for _ in range(3):
        around.worker()
    around.wait_until_ready()
    deadline = time.monotonic() + SOAK_SECONDS

    seed = 0
    while seed == 0 or time.monotonic() < deadline:
        seed += 1
        under_fire(around, web, engine, users, seed, assert_begun_anew if repeatable else assert_not_begun_anew)

    with connect(clean_redis.url) as client:
        assert eventually(lambda: not lasting_keys(client), 15), lasting_keys(client)
    print(f"{seed} times {10 * users} messages and {KILLS} kills, of workers and web processes")


def under_fire(
    around: Fleet, web: Server, engine: Engine, users: int, seed: int, assert_ends: Callable[[list[Stream]], None]
) -> None:
    chance = random.Random(seed)
    with Crowd(web.port, seed) as crowd:
        streams = [
            crowd.say(question(f"{seed}/{user}/{number}", 6, apart=0.15, silence=0.15), f"user-{seed}-{user}")
            for number in range(10)
            for user in range(users)
        ]
        assert crowd.wait_for(lambda: sum(bool(stream.text) for stream in streams) > 20, DEADLINE)
        assert crowd.wait_for(lambda: sum(bool(stream.message_id) for stream in streams) > 6 * users, DEADLINE)
        tabs, old_clients = more_readers(crowd, streams)
        for number in range(KILLS):
            for tab in tabs[number::KILLS]:
                crowd.drop(tab)
            if number % 3 == 2:
                with suppress(ProcessLookupError, IndexError):
                    os.kill(chance.choice(web.children), signal.SIGKILL)
            else:
                around.kill_a_worker(chance)
            crowd.wait_for(all_over(streams), chance.uniform(0.3, 2))
        assert crowd.wait_for(all_over(streams + tabs + old_clients), DEADLINE)
        assert all(tab.end for tab in tabs), "whoever comes back learns the end"

        assert_ended_once(streams, engine)
        assert_one_after_the_other(streams)
        assert_ends(streams)
        assert any(connection.how == "cut" for stream in streams for connection in stream.connections)
        assert_kept_as_they_were_told(crowd, streams)


def assert_not_begun_anew(streams: list[Stream]) -> None:
    ends = [stream.end for stream in streams]
    assert "interrupted" in ends, "some had begun to speak when their worker died"
    assert ends.count("complete") > 100
    assert not any(stream.restarts for stream in streams)


def assert_begun_anew(streams: list[Stream]) -> None:
    assert any(stream.restarts for stream in streams), "some had begun to speak when their worker died"
    for stream in streams:
        assert stream.end == "complete" or stream.restarts == MAX_RESTARTS, stream.events


def test_a_worker_that_is_frozen_beyond_its_lease_and_woken_changes_nothing(fleet, engine):
    around = fleet(LEASE_SECONDS="1")
    web, frozen = around.web(), around.worker()
    around.wait_until_ready()

    with Crowd(web.port) as crowd:
        spoken = [crowd.say(question(f"spoken-{number}", 20, apart=0.3)) for number in range(5)]
        silent = [crowd.say(question(f"silent-{number}", 5, silence=4)) for number in range(5)]
        assert crowd.wait_for(all_speak(spoken), DEADLINE)
        assert crowd.wait_for(running(engine, silent), DEADLINE)
        frozen.kill(signal.SIGSTOP)
        alive = around.worker()
        assert crowd.wait_for(all_over(spoken + silent), DEADLINE)
        assert {stream.end for stream in spoken} == {"interrupted"}
        assert {stream.end for stream in silent} == {"complete"}

        alive.kill(signal.SIGKILL)
        frozen.kill(signal.SIGCONT)
        woken = crowd.say(question("woken", 3))
        assert crowd.wait_for(all_over([woken]), DEADLINE), "it works on"
        assert eventually(lambda: frozen.log.count("has another worker now") == 10, DEADLINE), frozen.log

        assert_ended_once([*spoken, *silent, woken], engine)
        assert all(engine.asked[stream.message] == 2 for stream in silent)
        assert_kept_as_they_were_told(crowd, spoken + silent)


# Redis goes, and comes back.


@also_adopted
def test_a_redis_that_is_started_again_under_running_answers_costs_none(fleet, engine, lasting, adopts):
    around = fleet(lasting, LEASE_SECONDS=LONG, adopts=adopts)
    web = around.web(2)
    around.worker()
    around.worker()
    around.wait_until_ready()

    with Crowd(web.port) as crowd:
        streams = [
            crowd.say(question(f"{user}/{turn}", 10, apart=0.1, silence=0.2), f"user-{user}")
            for turn in range(3)
            for user in range(15)
        ]
        for spoken, number in ((5, signal.SIGTERM), (20, signal.SIGKILL)):
            assert crowd.wait_for(lambda spoken=spoken: sum(bool(stream.text) for stream in streams) > spoken, DEADLINE)
            more_readers(crowd, streams)
            lasting.stop(number)
            lasting.start()
        assert crowd.wait_for(all_over(crowd.streams), DEADLINE)

        assert_ended_once(streams, engine)
        assert {stream.end for stream in streams} == {"complete"}, "the workers had not died"
        assert_one_after_the_other(streams)
        assert_kept_as_they_were_told(crowd, streams)


def test_while_redis_is_away_nothing_is_taken_and_what_runs_goes_on_when_it_is_back(fleet, engine, lasting):
    around = fleet(lasting, LEASE_SECONDS="2")
    web = around.web(2)
    around.worker()
    around.wait_until_ready()

    with Crowd(web.port) as crowd:
        streams = [crowd.say(question(f"spoken-{number}", 30, apart=0.1)) for number in range(10)]
        silent = [crowd.say(question(f"silent-{number}", 5, silence=8)) for number in range(5)]
        assert crowd.wait_for(all_speak(streams), DEADLINE)
        assert crowd.wait_for(running(engine, silent), DEADLINE)
        tabs = [crowd.follow(stream) for stream in streams + silent]
        old_clients = [crowd.say_again(stream, comes_back=False) for stream in streams]
        assert crowd.wait_for(all_speak(tabs[: len(streams)] + old_clients), DEADLINE)
        lasting.stop(signal.SIGKILL)
        with Browser(web).say("now?") as reply:
            assert (reply.status, reply.json()["code"]) == (503, "upstream_unavailable")
            assert int(reply.headers["Retry-After"]) > 0
        followed = [stream.connections[0] for stream in streams]
        assert crowd.wait_for(lambda: all(connection.how for connection in followed), DEADLINE)
        assert {connection.how for connection in followed} == {"clean"}
        assert not any(stream.end for stream in streams)
        lasting.start()
        assert crowd.wait_for(all_over(streams + silent + tabs + old_clients), DEADLINE)

        assert_ended_once(streams + silent + tabs, engine)
        assert status_of(Browser(web).say("now")) == 200


def test_a_redis_that_is_not_there_refuses_the_start(tmp_path):
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    servers = [Server(kind, tmp_path / f"{kind}.log", REDIS_URL=url, BROKER_API_KEY="k" * 32) for kind in KINDS]

    for server in servers:
        assert server.process.wait(30) == 3, server.log
        assert server.log.count("REDIS_URL='redis://127.0.0.1:") == 1, server.log
        assert "s3cret" not in server.log
        assert "Booting worker" not in server.log
        assert "Traceback" not in server.log


KINDS = ("gunicorn", "broker", "worker")


# Told to stop.


def test_a_worker_that_is_told_to_stop_finishes_what_it_can_and_hands_over_the_rest(fleet, engine):
    around = fleet(LEASE_SECONDS=LONG, DRAIN_SECONDS="4")
    web, old, heir = around.web(), around.worker(), around.worker()
    around.wait_until_ready()
    heir.kill(signal.SIGSTOP)

    with Crowd(web.port) as crowd:
        short = [crowd.say(question(f"short-{number}", 5, apart=0.1)) for number in range(5)]
        endless = [crowd.say(question(f"endless-{number}", 1000, apart=0.1)) for number in range(5)]
        silent = [crowd.say(question(f"silent-{number}", 5, silence=4)) for number in range(5)]
        assert crowd.wait_for(all_speak(short + endless), DEADLINE)
        assert crowd.wait_for(running(engine, silent), DEADLINE)
        told = time.monotonic()
        old.kill(signal.SIGTERM)
        heir.kill(signal.SIGCONT)
        assert old.process.wait(20) == 0
        assert time.monotonic() - told < 9
        assert crowd.wait_for(all_over(short + endless + silent), DEADLINE)

    assert_ended_once(short + endless + silent, engine)
    assert {stream.end for stream in short} == {"complete"}
    assert {stream.end for stream in endless} == {"interrupted"}
    assert {stream.end for stream in silent} == {"complete"}
    assert all(engine.asked[stream.message] == 2 for stream in silent)


@also_adopted
def test_a_web_process_that_is_told_to_stop_hands_over_what_it_answers_itself(fleet, engine, adopts):
    around = fleet(LEASE_SECONDS=LONG, DRAIN_SECONDS="4", RUN_WORKER="1", adopts=adopts)
    old = around.web()
    around.wait_until_ready()

    with Crowd(old.port) as crowd:
        short = [crowd.say(question(f"short-{number}", 5, apart=0.1)) for number in range(5)]
        endless = [crowd.say(question(f"endless-{number}", 1000, apart=0.1)) for number in range(5)]
        silent = [crowd.say(question(f"silent-{number}", 5, silence=4)) for number in range(5)]
        assert crowd.wait_for(all_speak(short + endless), DEADLINE)
        assert crowd.wait_for(running(engine, silent), DEADLINE)
        crowd.port = around.web().port
        around.wait_until_ready()
        told = time.monotonic()
        old.kill(signal.SIGTERM)
        assert old.process.wait(30) == 0
        assert time.monotonic() - told < 15
        assert crowd.wait_for(all_over(short + endless + silent), DEADLINE)

    assert_ended_once(short + endless + silent, engine)
    assert {stream.end for stream in short + silent} == {"complete"}
    assert {stream.end for stream in endless} == {"interrupted"}


# Several processes, one chat.


@pytest.fixture
def three(request, start, clean_redis) -> list[Browser]:
    """One user at three web processes, of which one answers."""
    kind = getattr(request, "param", "gunicorn")
    options = {"REDIS_URL": clean_redis.url, "MAX_STREAMS_PER_USER": "3", "MESSAGES_PER_MINUTE": "4", "DRAIN_SECONDS": "1"}
    return [Browser(start(kind, RUN_WORKER=str(int(number == 0)), **options)) for number in range(3)]


@pytest.mark.parametrize("three", ["gunicorn", "adopted"], indirect=True)
def test_said_to_one_followed_at_another_stopped_at_a_third(three):
    first, second, third = three
    told = first.say("/slow 60 one two three four five")
    followed = second.follow(told.message_id)
    assert next(frame for frame in followed.frames() if "one" in frame)
    assert [place["message_id"] for place in third.active()] == [told.message_id]

    assert status_of(third.stop(told.message_id)) == 202

    whole = take(told)
    assert '"stopped"' in whole[-1]
    assert take(followed)[-1] == whole[-1]
    assert take(third.follow(told.message_id)) == whole
    assert first.active() == []


def test_a_users_limits_are_those_of_all_processes(three):
    held = [browser.say("/slow 60 one two") for browser in three]

    assert [status_of(browser.say("one too many")) for browser in three] == [429, 429, 429]

    held[0].leave()
    assert eventually(lambda: status_of(three[1].follow(held[1].message_id)) == 200, DEADLINE)
    for reply in held[1:]:
        reply.leave()
    assert eventually(lambda: status_of(three[2].follow(held[2].message_id)) == 200, DEADLINE)
    assert [status_of(browser.say("one message too many")) for browser in three] == [429, 429, 429]


def test_memory_and_redis_say_the_same_bytes(start, clean_redis):
    remembering, shared = start("gunicorn"), start("gunicorn", REDIS_URL=clean_redis.url)

    for message in ("hello, you", "/unicode", "/tool", "/error", "/cut", "/big 200", "/help", "/slow 0.3 a b c"):
        assert whole_bytes(remembering, message) == whole_bytes(shared, message)


def whole_bytes(server: Server, message: str) -> tuple[bytes, bytes]:
    """As it is told, and as it is told again."""
    browser = Browser(server)
    with browser.request("POST", "/api/chat/stream?ids=0", {"message": message}, X_Request_ID="one") as reply:
        told, message_id = reply.read(), reply.message_id
    with browser.request("GET", f"/api/chat/stream/{message_id}?ids=0", X_Request_ID="one") as reply:
        again = b"".join(line for line in reply.read().splitlines(True) if not line.startswith(b"retry:"))
    return told, again
