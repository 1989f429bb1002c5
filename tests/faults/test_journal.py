"""The embedded default with its journal, as processes: killed, reloaded, started twice, on a slow disk."""

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
def begin(start, tmp_path, file) -> Callable[..., Server]:
    return partial(start, QUEUE_FILE=str(file), DATABASE_URL=f"sqlite:///{tmp_path}/chat.db", MESSAGES_PER_MINUTE="10000")


def ended(browser: Browser, message_id: str) -> str:
    return str(list(browser.follow(message_id).events())[-1]["type"])


@pytest.mark.parametrize("kind", ["gunicorn", "flask", "adopted"])
def test_after_a_crash_what_waited_is_answered_and_what_had_ended_is_read(begin, kind):
    begin = partial(begin, kind, ECHO_WORD_SECONDS="0.05", ENGINE_REPEATABLE="1")
    server = begin()
    ada = Browser(server)
    done = ada.say("done")
    before = list(done.events())
    running, waiting = ada.say(WORDS), ada.say("waits")
    said = next(event for event in running.events() if event["type"] == "progress")
    server.crash()

    again = begin(port=server.port)
    ada = Browser(again)

    assert list(ada.follow(done.message_id).events()) == before
    assert text_of(list(ada.follow(waiting.message_id).events())).strip() == "waits"
    rest = list(ada.follow(running.message_id, after=said["id"]).events())
    kinds = [event["type"] for event in rest]
    assert (kinds.count("restart"), kinds[-1]) == (1, "complete")
    assert text_of(rest[kinds.index("restart") :]).split() == WORDS.split()


def test_a_reply_that_was_committed_and_not_stored_at_the_crash_begins_anew(begin, tmp_path, file):
    server = begin()
    ada = Browser(server)
    list(ada.say("hello").events())  # The database is open then.
    with closing(sqlite3.connect(tmp_path / "chat.db", timeout=DEADLINE, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        running = ada.say("one two")
        assert eventually(lambda: is_committed(file, running.message_id), DEADLINE)
        server.crash()
    again = Browser(begin(port=server.port))

    events = list(again.follow(running.message_id).events())

    kinds = [event["type"] for event in events]
    assert (kinds.count("restart"), kinds[-1]) == (1, "complete")
    assert text_of(events[kinds.index("restart") :]) == "one two"
    turns = again.request("GET", "/api/chat/history").json()["entries"]
    assert [turn["assistant_response"] for turn in turns] == ["hello", "one two"]


def is_committed(file: Path, message_id: str) -> bool:
    """Whether its reply may be stored: see `Recorder.note`."""
    return any(record[:2] == ["set", message_id] and record[6] for record in records(file))


def records(file: Path) -> list[list[Any]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return [record for (data,) in connection.execute("SELECT data FROM log") for record in json.loads(data)]


@pytest.mark.parametrize("kind", ["gunicorn", "adopted"])
def test_one_that_is_stopped_politely_leaves_what_waits(begin, kind):
    begin = partial(begin, kind)
    server = begin(ECHO_WORD_SECONDS="0.2", DRAIN_SECONDS="2")
    ada = Browser(server)
    ada.say(WORDS)
    waiting = ada.say("waits")
    server.stop(signal.SIGTERM)

    again = Browser(begin(port=server.port, ECHO_WORD_SECONDS="0.2"))

    assert ended(again, waiting.message_id) == "complete"


@pytest.mark.parametrize("kind", ["gunicorn", "adopted"])
def test_a_reload_keeps_the_order_and_every_answer(begin, kind):
    server = begin(kind, ECHO_WORD_SECONDS="0.05", DRAIN_SECONDS="10")
    ada = Browser(server)
    running, waiting = ada.say(WORDS), ada.say("waits")
    old = server.worker_pid

    server.kill(signal.SIGHUP)
    assert eventually(lambda: server.children and old not in server.children[-1:], DEADLINE)
    new = server.children[-1]
    assert eventually(lambda: answers_of(ada, running.message_id), DEADLINE)
    last = eventually(lambda: left(ada, "last"), DEADLINE)

    for message_id, expected in ((running.message_id, WORDS), (waiting.message_id, "waits"), (last, "last")):
        assert text_of(list(followed(ada, message_id))).strip() == expected
    assert eventually(lambda: server.children == [new], DEADLINE)
    assert "Traceback" not in server.log


def answers_of(browser: Browser, message_id: str) -> bool:
    try:
        return status_of(browser.follow(message_id)) == 200
    except OSError:
        return False


def left(browser: Browser, text: str) -> str:
    """Its id, "" while the server is between two processes."""
    try:
        with browser.say(text) as reply:
            return reply.message_id if reply.status == 200 else ""
    except OSError:
        return ""


def followed(browser: Browser, message_id: str) -> list[dict]:
    """As `EventSource` does: until the last event has come, however often the line breaks."""
    events: list[dict] = []

    def over() -> bool:
        try:
            reply = browser.follow(message_id, after=events[-1]["id"] if events else "")
            events.extend(event for event in reply.events() if "id" in event)
        except (OSError, AssertionError):
            return False
        return bool(events) and events[-1]["type"] in {"complete", "error", "stopped"}

    assert eventually(over, DEADLINE), events
    return events


def test_a_second_server_on_the_file_answers_503_and_stops_for_nothing(begin):
    first = begin()
    second = begin()

    assert status_of(Browser(second).say("hello")) == 503
    assert status_of(Browser(first).say("hello")) == 200
    assert second.process.poll() is None
    assert second.log.count("is in use by process") == 1
    first.crash()
    assert eventually(lambda: status_of(Browser(second).say("hello")) == 200, DEADLINE)


@pytest.mark.parametrize("command", [["routes"], ["db", "upgrade"], ["doctor"]])
def test_no_command_opens_the_file(file, tmp_path, command):
    environment = {**INHERITED, **BASE_ENVIRONMENT, "QUEUE_FILE": str(file), "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}

    subprocess.run([sys.executable, "-m", "flask", *command], cwd=ROOT, env=environment, timeout=60, capture_output=True)

    assert not file.parent.exists()


def test_the_file_is_opened_when_the_server_starts_and_only_its_owner_reads_it(begin, file):
    begin()

    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}


def test_a_damaged_file_keeps_no_server_from_starting(begin, file):
    file.parent.mkdir()
    file.write_bytes(os.urandom(5000))

    server = begin()

    assert status_of(Browser(server).say("hello")) == 200
    assert server.log.count("was damaged") == 1


def test_with_redis_there_is_no_file(begin, file, clean_redis):
    begin(REDIS_URL=clean_redis.url)

    assert not file.parent.exists()


STREAMS = 200
GAP_MOST = 0.05
"""Seconds."""


def test_two_hundred_answers_do_not_wait_for_a_slow_disk(begin):
    """Each commit takes 0.2 s, and there is always one."""
    server = begin("slow disk", ECHO_WORD_SECONDS="0.2")
    text = " ".join(f"word-{number}" for number in range(60))
    all_began = threading.Barrier(STREAMS + 1)
    hearing = threading.Thread(
        target=in_parallel, args=(STREAMS, lambda number: hear(server, f"user-{number}", text, all_began)), daemon=True
    )
    hearing.start()
    all_began.wait(60)

    # What blocks of our own blocks at any time; a machine that stops for a moment does not.
    longest = []
    while hearing.is_alive() and min(longest[1:], default=1.0) >= GAP_MOST:
        time.sleep(1)
        longest.append(Browser(server).request("GET", "/longest").json())

    assert min(longest[1:]) < GAP_MOST, longest
    hearing.join(60)


def hear(server: Server, user: str, text: str, all_began: threading.Barrier) -> None:
    events = Browser(server, user).say(text).events()
    first = next(events)
    all_began.wait(60)
    assert text_of([first, *events]).strip() == text


def test_the_file_holds_nothing_that_expired(begin, file):
    server = begin(RETENTION_SECONDS="1", ECHO_WORD_SECONDS="0")
    for number in range(3):
        list(Browser(server).say(f"{number} " + "secret " * 100).events())

    assert eventually(lambda: b"secret" not in rows(file), DEADLINE)


def rows(file: Path) -> bytes:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return b"".join(data for (data,) in connection.execute("SELECT data FROM log"))
