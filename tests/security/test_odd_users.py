"""Every route for users whose ids are text that URLs, headers and databases could trip over."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from tests.live import BROKER_KEY, Browser, Server, last_of, take
from tests.odd_users import ODD, REFUSED, shown
from tests.security.matrix import ENVIRONMENT, SECRET

pytestmark = pytest.mark.live
SPOKEN = {"message": "hear me", "message_type": "audio", "audio_base64": "QUJD", "audio_format": "ogg"}
ORG = "Word Collective"


class User(Browser):
    """By a token, in which an id can be anything."""

    def __init__(self, server: Server, user_id: str) -> None:
        super().__init__(server)
        token = jwt.encode({"sub": user_id, "org": ORG, "exp": time.time() + 3600}, SECRET, "HS256")
        self.headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, content: Any = None, status: int = 200) -> Any:
        reply = self.request(method, path, content)
        body = reply.read()
        assert reply.status == status, (method, path, reply.status, body)
        return json.loads(body) if body.startswith(b"{") else body


@pytest.fixture(scope="module", params=["bundled", "apart"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the broker in the same process, and with one of its own."""
    folder, servers = tmp_path_factory.mktemp("servers"), []
    settings = ENVIRONMENT | {"MESSAGES_PER_MINUTE": "100000", "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
    try:
        if request.param == "apart":
            servers.append(Server("broker", folder / "broker.log", BROKER_API_KEY=BROKER_KEY).wait_until_ready())
            settings |= {"BROKER_BASE_URL": servers[0].url, "BROKER_API_KEY": BROKER_KEY}
        servers.append(Server("gunicorn", folder / "web.log", **settings).wait_until_ready())
        yield servers[-1]
    finally:
        for one in servers:
            one.stop()


@pytest.fixture(params=ODD, ids=shown)
def user(server, request):
    return User(server, request.param)


def test_a_message_is_answered_followed_listed_and_stopped(user):
    with user.say("/slow 60 one two") as said:
        message_id = said.message_id
        first = next(said.frames())
        assert [message["message_id"] for message in user.ask("GET", "/api/chat/active")["messages"]] == [message_id]
        with user.request("GET", "/api/chat/stream/any/stream?protocol=ai-sdk") as latest:
            assert latest.headers["X-Message-ID"] == message_id
        user.ask("POST", f"/api/chat/stream/{message_id}/stop", status=202)
        rest = list(said.frames())

    assert json.loads(rest[-1].splitlines()[0][6:])["type"] == "stopped"
    assert take(user.follow(message_id)) == [first, *rest]
    assert user.ask("GET", "/api/chat/active") == {"messages": []}


def test_a_ticket_opens_a_stream(user):
    with user.say("hello") as said:
        message_id = said.message_id
        take(said)
    ticket = user.ask("POST", "/api/ticket", status=201)["ticket"]
    user.headers = {}

    assert last_of(user.request("GET", f"/api/chat/stream/{message_id}?ticket={ticket}"))["type"] == "complete"


def test_what_the_engine_keeps_is_found_again(user):
    spoken = user.ask("POST", "/api/chat", SPOKEN)
    turns = user.ask("GET", "/api/chat/history?order=newest")["entries"]
    language = user.ask("PUT", "/api/preferences", {"response_language": "fr"})
    audio = user.ask("GET", f"/api/audio?url={quote(spoken['voice_audio_url'], safe='')}")

    assert turns[0]["user_message"]
    assert turns[0]["voice_audio_url"] == spoken["voice_audio_url"]
    assert user.ask("GET", "/api/preferences") == language == {"response_language": "fr"}
    assert audio.startswith(b"RIFF")


def test_a_conversation_is_kept_and_answered(user):
    conversation = user.ask("POST", "/api/conversations", {"title": "mine"}, 201)
    path = f"/api/conversations/{conversation['id']}"
    message = user.ask("POST", f"{path}/messages", {"content": "one"}, 201)
    user.ask("PUT", f"{path}/messages/{message['id']}", {"content": "two"})
    user.ask("PATCH", path, {"title": "ours"})
    reply = user.ask("GET", f"{path}/stream")

    assert b"event: done" in reply
    assert len(user.ask("GET", f"{path}/messages")["messages"]) == 2
    assert [one["title"] for one in user.ask("GET", "/api/conversations")["conversations"]] == ["ours"]
    user.ask("DELETE", path, status=204)


def test_clients_of_other_protocols_are_answered(user):
    messages = [{"role": "user", "content": "hello"}]
    for model in ("default", "echo"):
        answer = user.ask("POST", "/v1/chat/completions", {"model": model, "messages": messages})
        assert answer["choices"][0]["message"]["content"].strip() == "hello"
    ui = {"messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}
    assert b'"finish"' in user.ask("POST", "/api/chat/stream?protocol=ai-sdk", ui)


@pytest.mark.parametrize("user_id", REFUSED, ids=shown)
def test_an_id_that_cannot_be_supported_is_refused_before_anything_is_done(server, user_id):
    user = User(server, user_id)

    for method, path, content in (
        ("POST", "/api/chat/stream", {"message": "hello"}),
        ("POST", "/api/chat", {"message": "hello"}),
        ("GET", "/api/chat/history", None),
        ("POST", "/api/conversations", {"title": "mine"}),
        ("POST", "/v1/chat/completions", {"model": "default", "messages": [{"role": "user", "content": "hello"}]}),
    ):
        answer = user.ask(method, path, content, status=401)
        if user_id.strip():
            assert "user id" in str(answer["error"])
