"""While one waits for the database, the others stream: a greenlet worker has one thread for all of them."""

import http.client
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import cycle
from typing import Any

import psycopg
import pytest

from tests.db.talk import ROOM, Talk, told
from tests.live import eventually, in_parallel

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DEADLINE = 30.0
LONG = "word " * 2_000


class Subscriber:
    """A reply that is read in the background, and counted."""

    def __init__(self, talk: Talk, conversation: str) -> None:
        self._reply = talk.hear(conversation)
        self.tokens = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError, http.client.IncompleteRead):  # Its server is stopped before it has said all.
            for frame in told(self._reply):
                self.tokens += frame.get("event") == "token"

    def hears(self, more: int) -> bool:
        enough = self.tokens + more
        return bool(eventually(lambda: self.tokens >= enough, DEADLINE))


class ThreadExecutor:
    """A call that is made in the background."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.result: Any = None
        self.over = threading.Event()
        threading.Thread(target=self._run, args=(do,), daemon=True).start()

    def _run(self, do: Callable[[], Any]) -> None:
        self.result = do()
        self.over.set()


@pytest.fixture
def postgres_url(postgres):
    return postgres.url()


def test_a_slow_query_does_not_stop_the_streams_beside_it(start, postgres_url):
    ada = Talk(start("gunicorn", DATABASE_URL=postgres_url, ECHO_WORD_SECONDS="0.02"))
    conversation, slow = ada.begin(LONG), ada.begin()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(3); RETURN NEW; END' LANGUAGE plpgsql"
        )
        connection.execute(
            "CREATE TRIGGER dawdle BEFORE UPDATE ON chat_conversations FOR EACH ROW"
            " WHEN (NEW.title = 'slow') EXECUTE FUNCTION dawdle()"
        )
    listener = Subscriber(ada, conversation)
    assert listener.hears(1)

    changing = ThreadExecutor(lambda: ada.change(slow, title="slow"))
    before = listener.tokens
    assert changing.over.wait(DEADLINE)

    assert changing.result["title"] == "slow"
    assert listener.tokens - before > 10


def test_a_locked_row_does_not_stop_the_streams_beside_it(start, postgres_url):
    ada = Talk(start("gunicorn", DATABASE_URL=postgres_url, ECHO_WORD_SECONDS="0.02"))
    conversation, locked = ada.begin(LONG), ada.begin()
    listener = Subscriber(ada, conversation)

    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT * FROM chat_conversations WHERE id = %s FOR UPDATE", [locked])
        changing = ThreadExecutor(lambda: ada.change(locked, title="new"))
        assert listener.hears(50)
        assert not changing.over.is_set()

    assert changing.over.wait(DEADLINE)
    assert changing.result["title"] == "new"


def test_another_processes_lock_stops_neither_streams_nor_those_who_read(start, tmp_path):
    file = tmp_path / "chat.db"
    ada = Talk(start("gunicorn", DATABASE_URL=f"sqlite:///{file}", ECHO_WORD_SECONDS="0.02"))
    conversation, other = ada.begin(LONG), ada.begin()
    listener = Subscriber(ada, conversation)
    assert listener.hears(1)

    with closing(sqlite3.connect(file, timeout=DEADLINE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        changing = ThreadExecutor(lambda: ada.change(other, title="new"))
        assert listener.hears(50)
        assert len(ada.request("GET", ROOM).json()["conversations"]) == 2
        assert not changing.over.is_set()
        connection.execute("ROLLBACK")

    assert changing.over.wait(DEADLINE)
    assert changing.result["title"] == "new"


STREAMS = 200
BLOCK_MOST = 0.1
"""Seconds."""


@pytest.mark.alone
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_two_hundred_stream_while_others_list_and_edit_and_nothing_blocks(start, url):
    server = start("ticking", DATABASE_URL=url, ECHO_WORD_SECONDS="0.05", MESSAGES_PER_MINUTE="99999")
    text = " ".join(f"word-{number}" for number in range(40))
    talks = [Talk(server, f"user-{number}") for number in range(STREAMS)]
    conversations = [talk.begin(text) for talk in talks]
    Talk(server).request("GET", "/longest").close()
    working = threading.Event()
    editors = [ThreadExecutor(lambda number=number: edit_on(Talk(server, f"editor-{number}"), working)) for number in range(3)]

    # What blocks of our own blocks in every round; a machine that stops for a moment does not.
    longest = []
    for turn in range(3):
        in_parallel(STREAMS, lambda number, turn=turn: hear_all(talks[number], conversations[number], f"?regenerate={turn}"))
        longest.append(Talk(server).request("GET", "/longest").json())
        if longest[-1] < BLOCK_MOST:
            break
    working.set()
    for editor in editors:
        assert editor.over.wait(DEADLINE)

    assert min(longest) < BLOCK_MOST, longest
    assert all(editor.result > 0 for editor in editors)
    for talk, conversation in list(zip(talks, conversations, strict=True))[::20]:
        assert [message["content"] for message in talk.replies(conversation)] == [text] * len(longest)


def hear_all(talk: Talk, conversation: str, query: str) -> None:
    with talk.hear(conversation, query) as reply:
        assert list(told(reply))[-1]["event"] == "done"


def edit_on(talk: Talk, enough: threading.Event) -> int:
    """Lists, tells, edits and changes until it is enough; how often."""
    conversation = talk.begin("said")
    message = talk.kept(conversation)[0]["id"]
    for count, agent in enumerate(cycle(["echo", None])):
        talk.change(conversation, title=f"title {count}", agentId=agent)
        talk.tell(conversation, f"message {count}")
        edited = talk.request("PUT", f"{ROOM}/{conversation}/messages/{message}", {"content": f"edited {count}"}).json()
        assert edited["editedContent"] == f"edited {count}"
        assert len(talk.request("GET", ROOM).json()["conversations"]) == 1
        if enough.is_set():
            return count + 1
        time.sleep(0.01)
    raise AssertionError("`cycle` never ends")
