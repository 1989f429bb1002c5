"""Direct chat with the bundled engine: stored in one hidden conversation per user, which the agent gets as its history."""

import json
from uuid import NAMESPACE_URL, uuid5

import pytest

from tests.engine.agents.openai_server import error_reply, full_reply, settings_of
from tests.live import content_of, new_app, who
from tests.wire_server import WireServer

STREAM, CHAT = "/api/chat/stream", "/api/chat"


@pytest.fixture
def new_client(tmp_path):
    """`new_client(SETTING="…")`: a client of a new app; all apps share one database."""
    return lambda **settings: new_app(DATABASE_URL=f"sqlite:///{tmp_path}/chat.db", **settings).test_client()


def send(client, message, path=STREAM, user="ada", **fields):
    """The stream's last event, or the JSON response."""
    response = client.post(path, json={"message": message, **fields}, headers=who(user))
    if path == CHAT:
        return response.json
    return content_of(response.get_data(as_text=True).removesuffix("\n\n").split("\n\n")[-1])


def history(client, user="ada"):
    entries = client.get("/api/chat/history", headers=who(user)).json["entries"]
    return [(entry["user_message"], entry["assistant_response"]) for entry in entries]


def messages_of(request):
    return [(message["role"], message["content"]) for message in json.loads(request.body)["messages"]]


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_the_model_gets_the_earlier_turns_even_after_a_restart(new_client, path):
    with WireServer(full_reply("first"), full_reply("second"), full_reply("third")) as model:
        for text in ("one", "two", "three"):
            send(new_client(**settings_of(model)), text, path)

    assert messages_of(model.requests[2]) == [
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", "second"),
        ("user", "three"),
    ]


def test_the_model_gets_no_turns_of_another_user(new_client):
    with WireServer(full_reply("first"), full_reply("second")) as model:
        client = new_client(**settings_of(model))
        send(client, "one")
        send(client, "two", user="bob")

    assert messages_of(model.requests[1]) == [("user", "two")]
    assert history(client) == [("one", "first")]


def test_a_failed_turn_is_not_stored(new_client):
    with WireServer([error_reply("500 Internal Server Error")], full_reply("second")) as model:
        client = new_client(**settings_of(model))
        assert send(client, "one")["type"] == "error"
        send(client, "two")

    assert messages_of(model.requests[1]) == [("user", "two")]
    assert history(client) == [("two", "second")]


def test_direct_chat_is_not_listed_as_a_conversation(new_client):
    client = new_client()
    send(client, "one")
    conversation_id = uuid5(NAMESPACE_URL, "chat-bff:direct:default/ada")

    assert client.get("/api/conversations", headers=who("ada")).json["conversations"] == []
    for path in ("", "/messages", "/stream"):
        assert client.get(f"/api/conversations/{conversation_id}{path}", headers=who("ada")).status_code == 404
    assert client.delete(f"/api/conversations/{conversation_id}", headers=who("ada")).status_code == 404
    assert history(client) == [("one", "one")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "/nothing"),
        ({"DEFAULT_AGENT": "echo"}, "/help"),
        ({"DEFAULT_AGENT": "demo", "OPENAI_BASE_URL": "http://localhost:1/v1"}, "/nothing"),
    ],
)
def test_the_agent_of_direct_chat_is_a_setting(new_client, settings, message):
    assert send(new_client(**settings), message)["response"]["responses"] == [message]


def test_an_unknown_default_agent_is_refused_at_startup():
    with pytest.raises(Exception, match="DEFAULT_AGENT='nobody' is none of echo, demo"):
        new_app(DEFAULT_AGENT="nobody")
