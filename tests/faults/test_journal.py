"""The embedded broker with its journal: killed, reloaded, started twice, and on a slow disk."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live import BASE_ENVIRONMENT, INHERITED, ROOT, Browser, Server, eventually, in_parallel, status_of, text_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DEADLINE = 30.0
WORDS = " ".join(f"word-{number}" for number in range(40))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "queue.db"


@pytest.fixture
def start_server(start, tmp_path, file) -> Callable[..., Server]:
    return partial(start, QUEUE_FILE=str(file), DATABASE_URL=f"sqlite:///{tmp_path}/chat.db", MESSAGES_PER_MINUTE="10000")


def last_type(browser: Browser, message_id: str) -> str:
    return str(list(browser.follow(message_id).events())[-1]["type"])


@pytest.mark.parametrize("kind", ["gunicorn", "flask", "adopted"])
def test_after_a_crash_queued_messages_run_and_ended_replies_are_readable(start_server, kind):
    start_server = partial(start_server, kind, ECHO_WORD_SECONDS="0.05", ENGINE_REPEATABLE="1")
    server = start_server()
    ada = Browser(server)
    done = ada.say("done")
    before = list(done.events())
    running, waiting = ada.say(WORDS), ada.say("waits")
    token = next(event for event in running.events() if event["type"] == "progress")
    server.crash()

    restarted = start_server(port=server.port)
    ada = Browser(restarted)

    assert list(ada.follow(done.message_id).events()) == before
    assert text_of(list(ada.follow(waiting.message_id).events())).strip() == "waits"
    rest = list(ada.follow(running.message_id, after=token["id"]).events())
    kinds = [event["type"] for event in rest]
    assert (kinds.count("restart"), kinds[-1]) == (1, "complete")
    assert text_of(rest[kinds.index("restart") :]).split() == WORDS.split()


def test_a_committed_reply_not_stored_before_a_crash_restarts(start_server, tmp_path, file):
    server = start_server()
    ada = Browser(server)
    list(ada.say("hello").events())  # The database is open after this.
    with closing(sqlite3.connect(tmp_path / "chat.db", timeout=DEADLINE, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        running = ada.say("one two")
        assert eventually(lambda: is_committed(file, running.message_id), DEADLINE)
        server.crash()
    restarted = Browser(start_server(port=server.port))

    events = list(restarted.follow(running.message_id).events())

    kinds = [event["type"] for event in events]
    assert (kinds.count("restart"), kinds[-1]) == (1, "complete")
    assert text_of(events[kinds.index("restart") :]) == "one two"
    turns = restarted.request("GET", "/api/chat/history").json()["entries"]
    assert [turn["assistant_response"] for turn in turns] == ["hello", "one two"]


def is_committed(file: Path, message_id: str) -> bool:
    """Whether the reply is committed, so that it may be stored."""
    return any(record[:2] == ["set", message_id] and record[6] for record in records(file))


def records(file: Path) -> list[list[Any]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return [record for (data,) in connection.execute("SELECT data FROM log") for record in json.loads(data)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gunicorn", "adopted"])
def test_a_graceful_stop_keeps_queued_messages(start_server, kind):
    start_server = partial(start_server, kind)
    server = start_server(ECHO_WORD_SECONDS="0.2", DRAIN_SECONDS="2")
    ada = Browser(server)
    ada.say(WORDS)
    waiting = ada.say("waits")
    server.stop(signal.SIGTERM)

    restarted = Browser(start_server(port=server.port, ECHO_WORD_SECONDS="0.2"))

    assert last_type(restarted, waiting.message_id) == "complete"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gunicorn", "adopted"])
def test_a_reload_keeps_the_order_and_every_reply(start_server, kind):
    server = start_server(kind, ECHO_WORD_SECONDS="0.05", DRAIN_SECONDS="10")
    ada = Browser(server)
    running, waiting = ada.say(WORDS), ada.say("waits")
    old = server.worker_pid

    server.kill(signal.SIGHUP)
    assert eventually(lambda: server.children and old not in server.children[-1:], DEADLINE)
    new = server.children[-1]
    assert eventually(lambda: is_found(ada, running.message_id), DEADLINE)
    last = eventually(lambda: send_once(ada, "last"), DEADLINE)

    for message_id, expected in ((running.message_id, WORDS), (waiting.message_id, "waits"), (last, "last")):
        assert text_of(list(follow_to_end(ada, message_id))).strip() == expected
    assert eventually(lambda: server.children == [new], DEADLINE)
    assert "Traceback" not in server.log


def is_found(browser: Browser, message_id: str) -> bool:
    try:
        return status_of(browser.follow(message_id)) == 200
    except OSError:
        return False


def send_once(browser: Browser, text: str) -> str:
    """Sends a message. Returns its id, or "" while no process accepts it."""
    try:
        with browser.say(text) as reply:
            return reply.message_id if reply.status == 200 else ""
    except OSError:
        return ""


def follow_to_end(browser: Browser, message_id: str) -> list[dict]:
    """Follows a reply to its terminal event, and reconnects like `EventSource`."""
    events: list[dict] = []

    def is_done() -> bool:
        try:
            reply = browser.follow(message_id, after=events[-1]["id"] if events else "")
            events.extend(event for event in reply.events() if "id" in event)
        except (OSError, AssertionError):
            return False
        return bool(events) and events[-1]["type"] in {"complete", "error", "stopped"}

    assert eventually(is_done, DEADLINE), events
    return events


def test_a_second_server_with_the_same_file_responds_503_until_the_first_exits(start_server):
    first = start_server()
    second = start_server()

    assert status_of(Browser(second).say("hello")) == 503
    assert status_of(Browser(first).say("hello")) == 200
    assert second.process.poll() is None
    assert second.log.count("is in use by process") == 1
    first.crash()
    assert eventually(lambda: status_of(Browser(second).say("hello")) == 200, DEADLINE)


@pytest.mark.parametrize("command", [["routes"], ["db", "upgrade"], ["doctor"]])
def test_commands_do_not_open_the_file(file, tmp_path, command):
    environment = {**INHERITED, **BASE_ENVIRONMENT, "QUEUE_FILE": str(file), "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}

    subprocess.run([sys.executable, "-m", "flask", *command], cwd=ROOT, env=environment, timeout=60, capture_output=True)

    assert not file.parent.exists()


def test_the_file_is_created_at_start_and_readable_by_its_owner_only(start_server, file):
    start_server()

    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}


def test_a_server_starts_with_a_damaged_file(start_server, file):
    file.parent.mkdir()
    file.write_bytes(os.urandom(5000))

    server = start_server()

    assert status_of(Browser(server).say("hello")) == 200
    assert server.log.count("was damaged") == 1


def test_with_redis_no_file_is_created(start_server, file, clean_redis):
    start_server(REDIS_URL=clean_redis.url)

    assert not file.parent.exists()


STREAMS = 200
MAX_GAP_SECONDS = 0.05


@pytest.mark.slow
@pytest.mark.alone
def test_two_hundred_replies_do_not_wait_for_a_slow_disk(start_server):
    """Each commit takes 0.2 s, and one is always running."""
    server = start_server("slow disk", ECHO_WORD_SECONDS="0.2")
    text = " ".join(f"word-{number}" for number in range(60))
    all_started = threading.Barrier(STREAMS + 1)
    readers = threading.Thread(
        target=in_parallel, args=(STREAMS, lambda number: read_reply(server, f"user-{number}", text, all_started)), daemon=True
    )
    readers.start()
    all_started.wait(60)

    # Blocking code would block in every second; a pause of the machine does not.
    longest = []
    while readers.is_alive() and min(longest[1:], default=1.0) >= MAX_GAP_SECONDS:
        time.sleep(1)
        longest.append(Browser(server).request("GET", "/longest").json())

    assert min(longest[1:]) < MAX_GAP_SECONDS, longest
    readers.join(60)


def read_reply(server: Server, user: str, text: str, all_started: threading.Barrier) -> None:
    events = Browser(server, user).say(text).events()
    first = next(events)
    all_started.wait(60)
    assert text_of([first, *events]).strip() == text


@pytest.mark.slow
def test_expired_replies_are_removed_from_the_file(start_server, file):
    server = start_server(RETENTION_SECONDS="1", ECHO_WORD_SECONDS="0")
    for number in range(3):
        list(Browser(server).say(f"{number} " + "secret " * 100).events())

    assert eventually(lambda: b"secret" not in rows(file), DEADLINE)


def rows(file: Path) -> bytes:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return b"".join(data for (data,) in connection.execute("SELECT data FROM log"))
