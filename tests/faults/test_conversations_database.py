"""A locked or unavailable database during a reply: the worker retries for a while, and nothing is stored in part."""

import json
import sqlite3
import threading
from contextlib import AbstractContextManager, closing

import pytest

from bff.db import database
from bff.engine import turns
from tests.db.talk import ROOM, ConversationBrowser, parse_frames
from tests.faults.conversation_readers import Conversation
from tests.faults.engine import question
from tests.faults.load import Clients
from tests.faults.model import Model
from tests.live import ADA, DEADLINE, new_app, status_of

WORDS = 5


@pytest.fixture
def model():
    with Model() as model:
        yield model


@pytest.fixture
def file(tmp_path):
    return tmp_path / "chat.db"


@pytest.fixture
def lock(file):
    """`lock()` takes SQLite's write lock until the end of its `with`, as another process might."""

    def make() -> AbstractContextManager[sqlite3.Connection]:
        connection = sqlite3.connect(file, timeout=DEADLINE, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        return closing(connection)

    return make


class Client:
    """A client of an app in this process, where waits are shortened."""

    def __init__(self, file, model: Model) -> None:
        self._client = new_app(DATABASE_URL=f"sqlite:///{file}", **model.settings).test_client()
        self.question = question("question", WORDS)
        self.id = self.post(ROOM, {"agentId": "openai"})["id"]
        self.post(f"{ROOM}/{self.id}/messages", {"content": self.question})

    def post(self, path: str, content) -> dict:
        return self._client.post(path, json=content, headers=ADA).get_json()

    def read_reply(self) -> list[dict]:
        """Reads the stream to its end."""
        text = self._client.get(f"{ROOM}/{self.id}/stream", headers=ADA).get_data(as_text=True)
        frames = [
            dict(line.split(": ", 1) for line in frame.splitlines()) for frame in text.split("\n\n") if "event: " in frame
        ]
        return [{"event": frame["event"], **json.loads(frame["data"])} for frame in frames]

    @property
    def replies(self) -> list[str]:
        messages = self._client.get(f"{ROOM}/{self.id}/messages", headers=ADA).get_json()["messages"]
        return [message["content"] for message in messages if message["role"] == "assistant"]


@pytest.fixture
def client(file, model, monkeypatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(turns, "RETRY_SECONDS", 0.02)
    return Client(file, model)


def test_a_reply_is_stored_once_the_database_is_back(client, lock, model):
    lock_held = lock()
    release = threading.Timer(1.0, lock_held.__exit__)
    release.start()

    events = client.read_reply()
    release.join()

    assert [event["event"] for event in events] == ["token"] * WORDS + ["done"]
    assert client.replies == ["".join(event["token"] for event in events[:-1])]
    assert model.calls[client.question] == 1


def test_a_reply_fails_if_the_database_stays_locked_and_can_be_retried(client, lock, model, monkeypatch):
    monkeypatch.setattr(turns, "DATABASE_SECONDS", 0.2)
    with lock():
        events = client.read_reply()

    assert (events[-1]["event"], events[-1]["code"]) == ("failure", "upstream_unavailable")
    assert client.replies == []
    assert client.read_reply()[-1]["event"] == "done"
    assert len(client.replies) == 1
    assert model.calls[client.question] == 2


@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_locked_database_does_not_block_other_replies(start, file, lock, model):
    web = start("gunicorn", DATABASE_URL=f"sqlite:///{file}", HEARTBEAT_SECONDS="0.1", **model.settings)
    waiting, slow = (
        Conversation(web, "ada", question("waits", WORDS)),
        Conversation(web, "bob", question("slow", 30, interval=0.1)),
    )
    with Clients(web.port) as clients:
        other = slow.tab(clients)
        assert clients.wait_for(lambda: other.text, DEADLINE)
        lock_held = lock()
        with lock_held:
            tab = waiting.tab(clients)
            assert clients.wait_for(lambda: tab.text, DEADLINE)
            seen = len(other.events)
            assert clients.wait_for(lambda: len(other.events) > seen + 5, DEADLINE), "the event loop is not blocked"
            with waiting.open_stream(Last_Event_ID=tab.last_id) as reply:
                assert [frame for frame, _ in zip(parse_frames(reply), range(3), strict=False)][-1] == {"comment": "keepalive"}
            assert not tab.end
        assert clients.wait_for(lambda: tab.done and other.done, DEADLINE)

    assert tab.is_complete(waiting.replies)
    assert other.is_complete(slow.replies)
    assert set(model.calls.values()) == {1}
    assert status_of(ConversationBrowser(web).request("GET", "/readyz")) == 200
