"""Conversations' replies with Redis, while workers and web processes die or are replaced."""

import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bff.ops.redis import connect
from tests.db.talk import parse_frames
from tests.faults.conversation_readers import Conversation, assert_stored_completely_or_not_at_all
from tests.faults.engine import question
from tests.faults.load import Clients, all_done
from tests.faults.model import Model
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
    """Web processes and workers that share one Redis, one database and one model."""

    def __init__(self, folder: Path, redis: RedisServer, **settings: str) -> None:
        self.database = folder / "chat.db"
        limits = {"MESSAGES_PER_MINUTE": "100000", "RUN_WORKER": "0", "DATABASE_URL": f"sqlite:///{self.database}"}
        self._folder = folder
        self._settings = {**limits, "REDIS_URL": redis.url, **settings}
        self.servers: list[Server] = []

    def start(self, kind: str, **settings: str) -> Server:
        log = self._folder / f"{kind}-{len(self.servers)}.log"
        self.servers.append(Server(kind, log, **{**self._settings, **settings}))
        return self.servers[-1]

    def kill(self) -> None:
        for server in self.servers:
            server.stop(signal.SIGKILL)


@pytest.fixture
def make_fleet(tmp_path, clean_redis, model):
    """`make_fleet(LEASE_SECONDS="1")`"""
    fleets: list[Fleet] = []

    def make(**settings: str) -> Fleet:
        fleets.append(Fleet(tmp_path, clean_redis, **model.settings, **settings))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.kill()


def start_conversations(web: Server, count: int, interval: float, delay: float) -> list[Conversation]:
    return in_parallel(
        count, lambda number: Conversation(web, f"user-{number}", question(f"q{number}", WORDS, interval, delay))
    )


@pytest.mark.slow
def test_replies_of_killed_processes_are_stored_once(make_fleet, model):
    fleet = make_fleet(LEASE_SECONDS="1", DISCONNECT_GRACE_SECONDS="60")
    web = fleet.start("gunicorn", WEB_CONCURRENCY="2")
    workers = [fleet.start("worker") for _ in range(2)]
    for server in fleet.servers:
        server.wait_until_ready()
    rng = random.Random(1)
    conversations = start_conversations(web, 40, interval=0.15, delay=0.2)

    with Clients(web.port) as clients:
        readers = {
            conversation: [conversation.tab(clients), conversation.tab(clients, CONTINUE)] for conversation in conversations
        }
        assert clients.wait_for(lambda: sum(bool(tab.text) for tab in clients.streams) > 5, DEADLINE)
        for victim in ("worker", "web", "worker", "web"):
            if victim == "web":
                with suppress(ProcessLookupError, IndexError):
                    os.kill(rng.choice(web.children), signal.SIGKILL)
            else:
                workers.pop(0).kill(signal.SIGKILL)
                workers.append(fleet.start("worker"))
            clients.wait_for(all_done(clients.streams), rng.uniform(0.2, 1))
        assert clients.wait_for(all_done(clients.streams), DEADLINE)
        ends = {tab.end for tabs in readers.values() for tab in tabs}
        assert ends <= {"done", "interrupted", ""}, ends
        assert all(tab.statuses[-1] == 204 for tab in clients.streams if tab.end == ""), "those that reconnected too late"

        missing = [conversation for conversation in conversations if not conversation.replies]
        retries = {conversation: conversation.tab(clients) for conversation in missing}
        assert clients.wait_for(all_done(clients.streams), DEADLINE)

    restarted = any(event["type"] == "restart" for tab in clients.streams for event in tab.events)
    assert restarted or missing, "some had sent output when their worker died"
    assert any(connection.outcome == "cut" for tab in clients.streams for connection in tab.connections)
    for conversation in conversations:
        tabs = [*readers[conversation], *([retries[conversation]] if conversation in retries else [])]
        assert len(conversation.replies) == 1
        assert_stored_completely_or_not_at_all(conversation, tabs, model)


@pytest.mark.slow
def test_a_killed_web_process_causes_no_second_model_call(make_fleet, model):
    fleet = make_fleet(DISCONNECT_GRACE_SECONDS="60")
    dying, staying = fleet.start("gunicorn"), fleet.start("gunicorn")
    fleet.start("worker")
    for server in fleet.servers:
        server.wait_until_ready()
    conversations = start_conversations(staying, 20, interval=0.1, delay=0)
    model.running.clear()

    with Clients(dying.port) as clients:
        tabs = [conversation.tab(clients) for conversation in conversations]
        assert clients.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        clients.port = staying.port
        dying.crash()
        model.running.set()
        assert clients.wait_for(all_done(tabs), DEADLINE)

    assert all(tab.connections[0].outcome == "cut" for tab in tabs)
    assert all(tab.is_complete(conversation.replies) for tab, conversation in zip(tabs, conversations, strict=True)), [
        tab.events for tab in tabs
    ]
    assert set(model.calls.values()) == {1}


@pytest.mark.slow
def test_a_rolling_restart_of_all_processes_loses_no_reply(make_fleet, model):
    fleet = make_fleet(DRAIN_SECONDS="6", DISCONNECT_GRACE_SECONDS="60")
    old = [fleet.start("gunicorn"), fleet.start("worker")]
    for server in old:
        server.wait_until_ready()
    conversations = start_conversations(old[0], 20, interval=0.1, delay=0)
    model.running.clear()

    with Clients(old[0].port) as clients:
        tabs = [conversation.tab(clients, query) for conversation in conversations for query in ("", CONTINUE)]
        assert clients.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        new = [fleet.start("gunicorn"), fleet.start("worker")]
        for server in new:
            server.wait_until_ready()
        clients.port = new[0].port
        for conversation in conversations:
            conversation.talk.url = new[0].url
        for server in old:
            server.kill(signal.SIGTERM)
        model.running.set()
        late_readers = [
            conversation.tab(clients, "?regenerate=more")
            for conversation in start_conversations(new[0], 5, interval=0, delay=0)
        ]
        assert clients.wait_for(all_done(clients.streams), DEADLINE)
        assert [server.process.wait(20) for server in old] == [0, 0]

    for tab, conversation in zip(tabs, [conversation for conversation in conversations for _ in range(2)], strict=True):
        assert tab.is_complete(conversation.replies), tab.events
    assert {tab.end for tab in late_readers} == {"done"}
    assert {connection.outcome for tab in tabs for connection in tab.connections} <= {"clean", "refused"}
    assert all(model.calls[conversation.question] == 1 for conversation in conversations)


# A worker that dies around the commit


@pytest.fixture
def waiting_conversation(make_fleet):
    """A fleet, its web process, its worker and a conversation with a question that was not sent to the agent yet."""
    fleet = make_fleet(LEASE_SECONDS="1")
    web, worker = fleet.start("gunicorn"), fleet.start("worker")
    for server in fleet.servers:
        server.wait_until_ready()
    with Conversation(
        web, "ada", question("first", 1)
    ).open_stream() as reply:  # The worker has opened the database after this.
        assert list(parse_frames(reply))[-1]["event"] == "done"
    return fleet, web, worker, Conversation(web, "ada", question("second", WORDS))


def lock(file: Path) -> closing:
    connection = sqlite3.connect(file, timeout=DEADLINE, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return closing(connection)


def is_committed(redis: RedisServer) -> bool:
    """Whether a running reply is committed: it may be stored and can no longer be stopped."""
    with connect(redis.url) as client:
        return any(client.hexists(key, "committed") for key in client.scan_iter("chat:*:run"))


def stored_replies(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT count(*) FROM chat_messages WHERE role = 'assistant'").fetchone()[0])


def test_a_reply_stored_before_its_worker_died_is_delivered(waiting_conversation, clean_redis, model):
    fleet, web, worker, conversation = waiting_conversation
    with Clients(web.port) as clients:
        with lock(fleet.database):
            tab = conversation.tab(clients)
            assert eventually(lambda: is_committed(clean_redis), DEADLINE)
            clean_redis.freeze()  # The end of the reply cannot be logged.
        try:
            assert eventually(lambda: stored_replies(fleet.database) == 2, DEADLINE)
            worker.crash()
        finally:
            clean_redis.thaw()
        fleet.start("worker").wait_until_ready()
        assert clients.wait_for(lambda: tab.done, DEADLINE)

    assert tab.is_complete(conversation.replies), tab.events
    assert model.calls[conversation.question] == 1


def test_a_committed_reply_that_was_not_stored_restarts(waiting_conversation, clean_redis, model):
    fleet, web, worker, conversation = waiting_conversation
    with Clients(web.port) as clients:
        with lock(fleet.database):
            tab = conversation.tab(clients)
            assert eventually(lambda: is_committed(clean_redis), DEADLINE)
            worker.crash()
        fleet.start("worker").wait_until_ready()
        assert clients.wait_for(lambda: tab.done, DEADLINE)

    assert tab.restarts == 1
    assert tab.is_complete(conversation.replies), tab.events
    assert model.calls[conversation.question] == 2


def test_readers_get_the_reply_that_a_worker_thought_dead_has_stored(waiting_conversation, clean_redis, model):
    fleet, web, slow_worker, conversation = waiting_conversation
    with Clients(web.port) as clients:
        with lock(fleet.database):
            tab = conversation.tab(clients)
            assert eventually(lambda: is_committed(clean_redis), DEADLINE)
            slow_worker.freeze()
        model.running.clear()
        fleet.start("worker").wait_until_ready()
        assert eventually(lambda: model.calls[conversation.question] == 2, DEADLINE)
        slow_worker.kill(signal.SIGCONT)
        assert eventually(lambda: stored_replies(fleet.database) == 2, DEADLINE)
        model.running.set()
        assert clients.wait_for(lambda: tab.done, DEADLINE)

    assert tab.restarts == 2
    assert tab.is_complete(conversation.replies), tab.events
    assert model.calls[conversation.question] == 2
