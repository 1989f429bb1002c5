"""A database that is locked or away while a reply is written: the worker insists, for a while; nothing is stored in part."""

import json
import sqlite3
import threading
from contextlib import AbstractContextManager, closing

import pytest

from bff.db import database
from bff.engine import turns
from tests.db.talk import ROOM, Talk, told
from tests.faults.engine import question
from tests.faults.load import Crowd
from tests.faults.model import Model
from tests.faults.tabs import Room
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
    """Entered, it holds SQLite's write lock, as another process may."""

    def make() -> AbstractContextManager[sqlite3.Connection]:
        connection = sqlite3.connect(file, timeout=DEADLINE, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        return closing(connection)

    return make


class Client:
    """In this process, where waits are shortened."""

    def __init__(self, file, model: Model) -> None:
        self._client = new_app(DATABASE_URL=f"sqlite:///{file}", **model.settings).test_client()
        self.question = question("question", WORDS)
        self.id = self.post(ROOM, {"agentId": "openai"})["id"]
        self.post(f"{ROOM}/{self.id}/messages", {"content": self.question})

    def post(self, path: str, content) -> dict:
        return self._client.post(path, json=content, headers=ADA).get_json()

    def hear(self) -> list[dict]:
        """The events to the end."""
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
    monkeypatch.setattr(database, "LOCKED_SECONDS", 0.05)
    monkeypatch.setattr(turns, "AGAIN_SECONDS", 0.02)
    return Client(file, model)


def test_a_reply_is_stored_when_the_database_is_back(client, lock, model):
    held = lock()
    later = threading.Timer(1.0, held.__exit__)
    later.start()

    events = client.hear()
    later.join()

    assert [event["event"] for event in events] == ["token"] * WORDS + ["done"]
    assert client.replies == ["".join(event["token"] for event in events[:-1])]
    assert model.asked[client.question] == 1


def test_a_reply_fails_when_the_database_stays_away_and_is_written_anew_later(client, lock, model, monkeypatch):
    monkeypatch.setattr(turns, "DATABASE_SECONDS", 0.2)
    with lock():
        events = client.hear()

    assert (events[-1]["event"], events[-1]["code"]) == ("failure", "upstream_unavailable")
    assert client.replies == []
    assert client.hear()[-1]["event"] == "done"
    assert len(client.replies) == 1
    assert model.asked[client.question] == 2


@pytest.mark.live
@pytest.mark.timeout(60)
def test_while_the_database_is_locked_others_are_told_their_replies(start, file, lock, model):
    web = start("gunicorn", DATABASE_URL=f"sqlite:///{file}", HEARTBEAT_SECONDS="0.1", **model.settings)
    waiting, slow = Room(web, "ada", question("waits", WORDS)), Room(web, "bob", question("slow", 30, apart=0.1))
    with Crowd(web.port) as crowd:
        other = slow.tab(crowd)
        assert crowd.wait_for(lambda: other.text, DEADLINE)
        held = lock()
        with held:
            tab = waiting.tab(crowd)
            assert crowd.wait_for(lambda: tab.text, DEADLINE)
            seen = len(other.events)
            assert crowd.wait_for(lambda: len(other.events) > seen + 5, DEADLINE), "nothing blocks"
            with waiting.hear(Last_Event_ID=tab.last_id) as reply:
                assert [frame for frame, _ in zip(told(reply), range(3), strict=False)][-1] == {"comment": "keepalive"}
            assert not tab.end
        assert crowd.wait_for(lambda: tab.over and other.over, DEADLINE)

    assert tab.is_whole(waiting.replies)
    assert other.is_whole(slow.replies)
    assert set(model.asked.values()) == {1}
    assert status_of(Talk(web).request("GET", "/readyz")) == 200
