"""Direct chat with the bundled engine: stored in one hidden conversation per user, which the agent gets as its history."""

import json
from uuid import NAMESPACE_URL, uuid5

import pytest

from bff.config.environment import load_settings
from bff.db.database import open_database
from bff.engine.app import create_engine
from tests.engine.agents.openai_server import DONE, HEAD, USAGE, error_reply, full_reply, piece, settings_of, text_deltas
from tests.live import BASE_ENVIRONMENT, content_of, new_app, who
from tests.wire_server import LAST_CHUNK, WireServer, reply

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
    with pytest.raises(Exception, match="DEFAULT_AGENT='nobody' is not one of echo, demo"):
        new_app(DEFAULT_AGENT="nobody")


CUT_SHORT = [HEAD, *text_deltas("half"), piece({}, "length"), USAGE, DONE, LAST_CHUNK]


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_reply_that_the_models_limit_cut_short_says_so(new_client, path):
    with WireServer(CUT_SHORT) as model:
        client = new_client(**settings_of(model))
        last = send(client, "one", path)

    response = last if path == CHAT else last["response"]
    assert (response["responses"], response["truncated"]) == (["half"], True)
    assert response["usage"] == {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    assert history(client) == [("one", "half")]


def test_a_stored_reply_is_still_truncated(tmp_path):
    request = {"client_id": "web", "user_id": "ann", "org": "org", "message": "one", "message_id": "m-1"}
    headers = {"Authorization": "Bearer " + "k" * 32}
    with WireServer(CUT_SHORT) as model:
        settings = load_settings({**BASE_ENVIRONMENT, "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db", **settings_of(model)})
        open_database(settings).upgrade()
        client = create_engine(settings, "k" * 32).test_client()
        streams = [client.post("/api/v1/chat/stream", json=request, headers=headers).text for _ in range(2)]

    assert len(model.requests) == 1
    assert all('"truncated":true' in stream for stream in streams)


@pytest.mark.parametrize(
    ("response", "status", "code"),
    [
        ([HEAD, piece({}, "stop"), DONE, LAST_CHUNK], 502, "answer_incomplete"),
        ([reply(b'{"error": {"code": "context_length_exceeded"}}', "400 Bad Request")], 400, "context_too_long"),
        ([error_reply("503 Service Unavailable")], 503, "upstream_unavailable"),
        ([error_reply("429 Too Many Requests", Retry_After="77")], 429, "too_many_requests"),
    ],
)
def test_codes_of_the_agent_survive_to_the_browser(new_client, response, status, code, capsys):
    with WireServer(response) as model:
        client = new_client(**settings_of(model))
        whole = client.post(CHAT, json={"message": "one"}, headers=who("ada"))
        streamed = send(client, "one")

    assert (whole.status_code, whole.json["code"], streamed["code"]) == (status, code, code)
    assert status != 429 or whole.headers["Retry-After"] == "77"
    assert f"the reply failed: {code}" in capsys.readouterr().err
    assert history(client) == []


def test_reasoning_is_streamed_unless_it_is_switched_off(new_client):
    with WireServer([HEAD, piece({"reasoning_content": "hm"}), *text_deltas("ok"), piece({}, "stop"), DONE]) as model:
        clients = [new_client(**settings_of(model), RELAY_REASONING=switch) for switch in "10"]
        bodies = [client.post(STREAM, json={"message": "one"}, headers=who("ada")).text for client in clients]

    assert ['{"type":"reasoning","text":"hm"}' in body for body in bodies] == [True, False]
    assert all('"responses":["ok"]' in body for body in bodies)


def test_a_long_conversation_stays_answerable(new_client):
    with WireServer(full_reply("y" * 50)) as model:
        client = new_client(HISTORY_CHARACTERS="220", **settings_of(model))
        for number in range(6):
            assert send(client, f"{number}" + "x" * 49)["type"] == "complete"
        assert send(client, "z" * 1000)["type"] == "complete"

    assert [len(messages_of(request)) for request in model.requests] == [1, 3, 3, 3, 3, 3, 1]
    assert messages_of(model.requests[5])[0][1].startswith("4")


def test_a_silent_model_is_no_silent_engine(new_client):
    """The bundled engine and broker send signs of life more often than UPSTREAM_READ_SECONDS."""
    with WireServer([HEAD, *text_deltas("o"), 1.8, *text_deltas("k"), piece({}, "stop"), DONE, LAST_CHUNK]) as model:
        client = new_client(UPSTREAM_READ_SECONDS="0.9", **settings_of(model))

        assert send(client, "one")["response"]["responses"] == ["ok"]
