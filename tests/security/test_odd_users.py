"""Every route with user ids that are difficult for URLs, headers and databases."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from tests.live import BROKER_KEY, Browser, Server, last_of, take
from tests.odd_users import ODD, REFUSED, short_id
from tests.security.matrix import SECRET, SETTINGS

pytestmark = pytest.mark.live
AUDIO = {"message": "hear me", "message_type": "audio", "audio_base64": "QUJD", "audio_format": "ogg"}
ORG = "Word Collective"


class User(Browser):
    """Authenticated by a JWT, whose subject can be any text."""

    def __init__(self, server: Server, user_id: str) -> None:
        super().__init__(server)
        token = jwt.encode({"sub": user_id, "org": ORG, "exp": time.time() + 3600}, SECRET, "HS256")
        self.headers = {"Authorization": f"Bearer {token}"}

    def fetch(self, method: str, path: str, content: Any = None, status: int = 200) -> Any:
        """JSON, or else bytes."""
        reply = self.request(method, path, content)
        body = reply.read()
        assert reply.status == status, (method, path, reply.status, body)
        return json.loads(body) if body.startswith(b"{") else body


@pytest.fixture(scope="module", params=["bundled", "apart"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the bundled broker in the same process, and with a broker in its own process."""
    folder, servers = tmp_path_factory.mktemp("servers"), []
    settings = SETTINGS | {"MESSAGES_PER_MINUTE": "100000", "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
    try:
        if request.param == "apart":
            servers.append(Server("broker", folder / "broker.log", BROKER_API_KEY=BROKER_KEY).wait_until_ready())
            settings |= {"BROKER_BASE_URL": servers[0].url, "BROKER_API_KEY": BROKER_KEY}
        servers.append(Server("gunicorn", folder / "web.log", **settings).wait_until_ready())
        yield servers[-1]
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(params=ODD, ids=short_id)
def user(server, request):
    return User(server, request.param)


def test_a_message_is_streamed_listed_stopped_and_resumed(user):
    message = {"role": "user", "parts": [{"type": "text", "text": "/slow 60 one two"}]}
    with user.request("POST", "/api/chat/stream?protocol=ai-sdk", {"id": "chat-1", "messages": [message]}) as sent:
        message_id = sent.message_id
    with user.follow(message_id) as streamed:
        next(streamed.frames())
        assert [message["message_id"] for message in user.fetch("GET", "/api/chat/active")["messages"]] == [message_id]
        with user.request("GET", "/api/chat/stream/chat-1/stream?protocol=ai-sdk") as latest:
            assert latest.headers["X-Message-ID"] == message_id
        user.fetch("POST", f"/api/chat/stream/{message_id}/stop", status=202)
        rest = list(streamed.frames())

    assert json.loads(rest[-1].splitlines()[0][6:])["type"] == "stopped"
    assert take(user.follow(message_id))[1:] == rest
    assert user.fetch("GET", "/api/chat/active") == {"messages": []}


def test_a_ticket_opens_a_stream(user):
    with user.say("hello") as streamed:
        message_id = streamed.message_id
        take(streamed)
    ticket = user.fetch("POST", "/api/ticket", status=201)["ticket"]
    user.headers = {}

    assert last_of(user.request("GET", f"/api/chat/stream/{message_id}?ticket={ticket}"))["type"] == "complete"


def test_engine_data_is_found_again(user):
    spoken = user.fetch("POST", "/api/chat", AUDIO)
    turns = user.fetch("GET", "/api/chat/history?order=newest")["entries"]
    language = user.fetch("PUT", "/api/preferences", {"response_language": "fr"})
    audio = user.fetch("GET", f"/api/audio?url={quote(spoken['voice_audio_url'], safe='')}")

    assert turns[0]["user_message"]
    assert turns[0]["voice_audio_url"] == spoken["voice_audio_url"]
    assert user.fetch("GET", "/api/preferences") == language == {"response_language": "fr"}
    assert audio.startswith(b"RIFF")


def test_a_conversation_gets_a_reply(user):
    conversation = user.fetch("POST", "/api/conversations", {"title": "mine"}, 201)
    path = f"/api/conversations/{conversation['id']}"
    message = user.fetch("POST", f"{path}/messages", {"content": "one"}, 201)
    user.fetch("PUT", f"{path}/messages/{message['id']}", {"content": "two"})
    user.fetch("PATCH", path, {"title": "ours"})
    reply = user.fetch("GET", f"{path}/stream")

    assert b"event: done" in reply
    assert len(user.fetch("GET", f"{path}/messages")["messages"]) == 2
    conversations = user.fetch("GET", "/api/conversations")["conversations"]
    assert [conversation["title"] for conversation in conversations] == ["ours"]
    user.fetch("DELETE", path, status=204)


def test_other_protocols_get_a_reply(user):
    messages = [{"role": "user", "content": "hello"}]
    for model in ("default", "echo"):
        body = user.fetch("POST", "/v1/chat/completions", {"model": model, "messages": messages})
        assert body["choices"][0]["message"]["content"].strip() == "hello"
    ui = {"messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}
    assert b'"finish"' in user.fetch("POST", "/api/chat/stream?protocol=ai-sdk", ui)


@pytest.mark.parametrize("user_id", REFUSED, ids=short_id)
def test_unsupported_ids_are_refused(server, user_id):
    user = User(server, user_id)

    for method, path, content in (
        ("POST", "/api/chat/stream", {"message": "hello"}),
        ("POST", "/api/chat", {"message": "hello"}),
        ("GET", "/api/chat/history", None),
        ("POST", "/api/conversations", {"title": "mine"}),
        ("POST", "/v1/chat/completions", {"model": "default", "messages": [{"role": "user", "content": "hello"}]}),
    ):
        body = user.fetch(method, path, content, status=401)
        if user_id.strip():
            assert "user id" in str(body["error"])
