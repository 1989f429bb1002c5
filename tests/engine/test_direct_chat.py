"""Direct chat with the bundled engine: stored in one hidden conversation a user, which its agent is told."""

import json
from uuid import NAMESPACE_URL, uuid5

import pytest

from tests.engine.agents.openai_server import refusal, settings_of, whole
from tests.live import content_of, new_app, who
from tests.wire_server import WireServer

STREAM, CHAT = "/api/chat/stream", "/api/chat"


@pytest.fixture
def make(tmp_path):
    """`make(SETTING="…")`: a client of an app of its own; all share one database."""
    return lambda **settings: new_app(DATABASE_URL=f"sqlite:///{tmp_path}/chat.db", **settings).test_client()


def say(client, message, path=STREAM, user="ada", **more):
    """The last event, or the one answer."""
    response = client.post(path, json={"message": message, **more}, headers=who(user))
    if path == CHAT:
        return response.json
    return content_of(response.get_data(as_text=True).removesuffix("\n\n").split("\n\n")[-1])


def history(client, user="ada"):
    entries = client.get("/api/chat/history", headers=who(user)).json["entries"]
    return [(entry["user_message"], entry["assistant_response"]) for entry in entries]


def told(request):
    return [(message["role"], message["content"]) for message in json.loads(request.body)["messages"]]


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_model_is_told_the_earlier_turns_after_a_restart_too(make, path):
    with WireServer(whole("first"), whole("second"), whole("third")) as model:
        for text in ("one", "two", "three"):
            say(make(**settings_of(model)), text, path)

    assert told(model.requests[2]) == [
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", "second"),
        ("user", "three"),
    ]


def test_another_user_is_not_told_of(make):
    with WireServer(whole("first"), whole("second")) as model:
        client = make(**settings_of(model))
        say(client, "one")
        say(client, "two", user="bob")

    assert told(model.requests[1]) == [("user", "two")]
    assert history(client) == [("one", "first")]


def test_a_turn_that_failed_leaves_nothing(make):
    with WireServer([refusal("500 Internal Server Error")], whole("second")) as model:
        client = make(**settings_of(model))
        assert say(client, "one")["type"] == "error"
        say(client, "two")

    assert told(model.requests[1]) == [("user", "two")]
    assert history(client) == [("two", "second")]


def test_it_is_no_conversation(make):
    client = make()
    say(client, "one")
    hidden = uuid5(NAMESPACE_URL, "chat-bff:direct:unfoldingWord/ada")

    assert client.get("/api/conversations", headers=who("ada")).json["conversations"] == []
    for path in ("", "/messages", "/stream"):
        assert client.get(f"/api/conversations/{hidden}{path}", headers=who("ada")).status_code == 404
    assert client.delete(f"/api/conversations/{hidden}", headers=who("ada")).status_code == 404
    assert history(client) == [("one", "one")]


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({}, "/nothing"),
        ({"DEFAULT_AGENT": "echo"}, "/help"),
        ({"DEFAULT_AGENT": "demo", "OPENAI_BASE_URL": "http://localhost:1/v1"}, "/nothing"),
    ],
)
def test_who_answers_is_a_setting(make, settings, answer):
    assert say(make(**settings), answer)["response"]["responses"] == [answer]


def test_an_agent_that_is_none_stops_the_start():
    with pytest.raises(Exception, match="DEFAULT_AGENT='nobody' is none of echo, demo"):
        new_app(DEFAULT_AGENT="nobody")
