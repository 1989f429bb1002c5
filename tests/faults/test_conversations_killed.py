"""Conversations' replies around one Redis, while workers and web processes die or are replaced."""

import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bff.ops.redis import connect
from tests.db.talk import told
from tests.faults.engine import question
from tests.faults.load import Crowd, all_over
from tests.faults.model import Model
from tests.faults.tabs import Room, assert_stored_whole_or_not_at_all
from tests.live import Server, eventually, in_parallel
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DEADLINE = 60.0
WORDS = 10
CONTINUE = "?on_disconnect=continue"


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as model:
        yield model


class Fleet:
    """Web processes and workers, all around one Redis, one database and one model."""

    def __init__(self, folder: Path, redis: RedisServer, **settings: str) -> None:
        self.database = folder / "chat.db"
        room = {"MESSAGES_PER_MINUTE": "100000", "RUN_WORKER": "0", "DATABASE_URL": f"sqlite:///{self.database}"}
        self._folder = folder
        self._settings = {**room, "REDIS_URL": redis.url, **settings}
        self.servers: list[Server] = []

    def begin(self, kind: str, **settings: str) -> Server:
        log = self._folder / f"{kind}-{len(self.servers)}.log"
        self.servers.append(Server(kind, log, **{**self._settings, **settings}))
        return self.servers[-1]

    def end(self) -> None:
        for server in self.servers:
            server.stop(signal.SIGKILL)


@pytest.fixture
def fleet(tmp_path, clean_redis, model):
    """`fleet(LEASE_SECONDS="1")`"""
    made: list[Fleet] = []

    def make(**settings: str) -> Fleet:
        made.append(Fleet(tmp_path, clean_redis, **model.settings, **settings))
        return made[-1]

    yield make
    for one in made:
        one.end()


def rooms_of(web: Server, count: int, apart: float, silence: float) -> list[Room]:
    return in_parallel(count, lambda number: Room(web, f"user-{number}", question(f"q{number}", WORDS, apart, silence)))


def test_killed_processes_cost_no_reply_more_than_its_run(fleet, model):
    around = fleet(LEASE_SECONDS="1")
    web = around.begin("gunicorn", WEB_CONCURRENCY="2")
    workers = [around.begin("worker") for _ in range(2)]
    for server in around.servers:
        server.wait_until_ready()
    chance = random.Random(1)
    rooms = rooms_of(web, 40, apart=0.15, silence=0.2)

    with Crowd(web.port) as crowd:
        first = {room: [room.tab(crowd), room.tab(crowd, CONTINUE)] for room in rooms}
        assert crowd.wait_for(lambda: sum(bool(tab.text) for tab in crowd.streams) > 5, DEADLINE)
        for victim in ("worker", "web", "worker", "web"):
            if victim == "web":
                with suppress(ProcessLookupError, IndexError):
                    os.kill(chance.choice(web.children), signal.SIGKILL)
            else:
                workers.pop(0).kill(signal.SIGKILL)
                workers.append(around.begin("worker"))
            crowd.wait_for(all_over(crowd.streams), chance.uniform(0.2, 1))
        assert crowd.wait_for(all_over(crowd.streams), DEADLINE)
        ends = {tab.end for tabs in first.values() for tab in tabs}
        assert ends <= {"done", "interrupted", ""}, ends
        assert all(tab.statuses[-1] == 204 for tab in crowd.streams if tab.end == ""), "those who came back too late"

        missing = [room for room in rooms if not room.replies]
        again = {room: room.tab(crowd) for room in missing}
        assert crowd.wait_for(all_over(crowd.streams), DEADLINE)

    restarted = any(event["type"] == "restart" for tab in crowd.streams for event in tab.events)
    assert restarted or missing, "some had begun to be told when their worker died"
    assert any(connection.how == "cut" for tab in crowd.streams for connection in tab.connections)
    for room in rooms:
        tabs = [*first[room], *([again[room]] if room in again else [])]
        assert len(room.replies) == 1
        assert_stored_whole_or_not_at_all(room, tabs, model)


def test_a_web_process_that_is_killed_costs_no_reply_a_call(fleet, model):
    around = fleet()
    dying, staying = around.begin("gunicorn"), around.begin("gunicorn")
    around.begin("worker")
    for server in around.servers:
        server.wait_until_ready()
    rooms = rooms_of(staying, 20, apart=0.2, silence=0.2)

    with Crowd(dying.port) as crowd:
        tabs = [room.tab(crowd) for room in rooms]
        assert crowd.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        crowd.port = staying.port
        dying.crash()
        assert crowd.wait_for(all_over(tabs), DEADLINE)

    assert all(tab.connections[0].how == "cut" for tab in tabs)
    assert all(tab.is_whole(room.replies) for tab, room in zip(tabs, rooms, strict=True)), [tab.events for tab in tabs]
    assert set(model.asked.values()) == {1}


def test_a_rolling_restart_of_all_processes_is_noticed_by_no_reader(fleet, model):
    around = fleet(DRAIN_SECONDS="6")
    old = [around.begin("gunicorn"), around.begin("worker")]
    for server in old:
        server.wait_until_ready()
    rooms = rooms_of(old[0], 20, apart=0.15, silence=0.2)

    with Crowd(old[0].port) as crowd:
        tabs = [room.tab(crowd, query) for room in rooms for query in ("", CONTINUE)]
        assert crowd.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        new = [around.begin("gunicorn"), around.begin("worker")]
        for server in new:
            server.wait_until_ready()
        crowd.port = new[0].port
        for room in rooms:
            room.talk.url = new[0].url
        for server in old:
            server.kill(signal.SIGTERM)
        late = [room.tab(crowd, "?regenerate=more") for room in rooms_of(new[0], 5, apart=0, silence=0)]
        assert crowd.wait_for(all_over(crowd.streams), DEADLINE)
        assert [server.process.wait(20) for server in old] == [0, 0]

    for tab, room in zip(tabs, [room for room in rooms for _ in range(2)], strict=True):
        assert tab.is_whole(room.replies), tab.events
    assert {tab.end for tab in late} == {"done"}
    assert {connection.how for tab in tabs for connection in tab.connections} <= {"clean", "refused"}
    assert all(model.asked[room.question] == 1 for room in rooms)


# A worker dies at the worst of moments


@pytest.fixture
def one_room(fleet):
    """Around one worker, a conversation whose reply waits for the database: SQLite's write lock is held."""
    around = fleet(LEASE_SECONDS="1")
    web, worker = around.begin("gunicorn"), around.begin("worker")
    for server in around.servers:
        server.wait_until_ready()
    with Room(web, "ada", question("first", 1)).hear() as reply:  # It has opened the database then.
        assert list(told(reply))[-1]["event"] == "done"
    return around, web, worker, Room(web, "ada", question("second", WORDS))


def lock(file: Path) -> closing:
    connection = sqlite3.connect(file, timeout=DEADLINE, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return closing(connection)


def is_committed(redis: RedisServer) -> bool:
    """Whether the reply that runs may be stored, and cannot be stopped any more."""
    with connect(redis.url) as client:
        return any(client.hexists(key, "committed") for key in client.scan_iter("chat:*:run"))


def stored(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT count(*) FROM chat_messages WHERE role = 'assistant'").fetchone()[0])


def test_a_reply_that_was_stored_when_its_worker_died_is_told_as_it_is(one_room, clean_redis, model):
    around, web, worker, room = one_room
    with Crowd(web.port) as crowd:
        with lock(around.database):
            tab = room.tab(crowd)
            assert eventually(lambda: is_committed(clean_redis), DEADLINE)
            clean_redis.freeze()  # What is stored now cannot be told.
        try:
            assert eventually(lambda: stored(around.database) == 2, DEADLINE)
            worker.crash()
        finally:
            clean_redis.thaw()
        around.begin("worker").wait_until_ready()
        assert crowd.wait_for(lambda: tab.over, DEADLINE)

    assert tab.is_whole(room.replies), tab.events
    assert model.asked[room.question] == 1


def test_a_reply_that_was_not_stored_when_its_worker_died_begins_anew(one_room, clean_redis, model):
    around, web, worker, room = one_room
    with Crowd(web.port) as crowd:
        with lock(around.database):
            tab = room.tab(crowd)
            assert eventually(lambda: is_committed(clean_redis), DEADLINE)
            worker.crash()
        around.begin("worker").wait_until_ready()
        assert crowd.wait_for(lambda: tab.over, DEADLINE)

    assert tab.restarts == 1
    assert tab.is_whole(room.replies), tab.events
    assert model.asked[room.question] == 2
