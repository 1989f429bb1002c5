"""The access matrix: for each route, the status that each kind of caller gets. A route that is missing here fails a test."""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import jwt
from flask import Flask

from tests import live

SECRET = "s" * 32
SETTINGS = {"AUTH_MODE": "jwt", "AUTH_JWT_SECRET": SECRET, "LOG_LEVEL": "ERROR"}
PRIVATE_TEXT = "only its owner may read this"


class Row(NamedTuple):
    """`statuses`: for an unauthenticated caller, another user, the same user in another org, and the owner.

    `json`: the body of the request. `query` may contain the owner's objects, as in `{audio}`.
    """

    statuses: tuple[int, int, int, int]
    json: Any = None
    query: str = ""


PUBLIC = Row((200, 200, 200, 200))
ANY_USER = (401, 200, 200, 200)
OWNER_ONLY = (401, 404, 404, 200)

MATRIX = {
    "GET /": PUBLIC,
    "GET /static/<path:filename>": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /openapi.json": PUBLIC,
    "GET /v1/models": Row(ANY_USER),
    "GET /v1/models/<path:name>": Row(ANY_USER),
    "POST /v1/chat/completions": Row(
        ANY_USER, {"model": "default", "stream": True, "messages": [{"role": "user", "content": PRIVATE_TEXT}]}
    ),
    "POST /v1/responses": Row(ANY_USER, {"model": "default", "input": PRIVATE_TEXT}),
    "GET /v1/responses/<response_id>": Row(OWNER_ONLY),
    "POST /v1/responses/<response_id>/cancel": Row(OWNER_ONLY),
    "DELETE /v1/responses/<response_id>": Row(OWNER_ONLY),
    "GET /v1/responses/<response_id>/input_items": Row(OWNER_ONLY),
    "GET /api/chat/stream/<chat_id>/stream": Row((401, 204, 204, 200)),
    "GET /api/agents": Row(ANY_USER),
    "GET /api/conversations": Row(ANY_USER),
    "POST /api/conversations": Row((401, 201, 201, 201), {"title": PRIVATE_TEXT}),
    "GET /api/conversations/<uuid:conversation_id>": Row(OWNER_ONLY),
    "PATCH /api/conversations/<uuid:conversation_id>": Row(OWNER_ONLY, {"title": "another"}),
    "DELETE /api/conversations/<uuid:conversation_id>": Row((401, 404, 404, 204)),
    "GET /api/conversations/<uuid:conversation_id>/messages": Row(OWNER_ONLY),
    "POST /api/conversations/<uuid:conversation_id>/messages": Row((401, 404, 404, 201), {"content": PRIVATE_TEXT}),
    "PUT /api/conversations/<uuid:conversation_id>/messages/<uuid:message_id>": Row(OWNER_ONLY, {"content": "said better"}),
    "GET /api/conversations/<uuid:conversation_id>/stream": Row(OWNER_ONLY),
    "POST /api/conversations/<uuid:conversation_id>/stop": Row((401, 404, 404, 202)),
    "GET /metrics": PUBLIC,
    "GET /api/diagnostics/stream": PUBLIC,
    "GET /api/chat/history": Row(ANY_USER),
    "GET /api/preferences": Row(ANY_USER),
    "PUT /api/preferences": Row(ANY_USER, {"response_language": "en"}),
    "GET /api/audio": Row(OWNER_ONLY, query="?url={audio}"),
    "POST /api/chat": Row(ANY_USER, {"message": "hello"}),
    "POST /api/ticket": Row((401, 201, 201, 201)),
    "POST /api/chat/stream": Row(ANY_USER, {"message": PRIVATE_TEXT}),
    "GET /api/chat/stream": Row(OWNER_ONLY, query="?runId={message_id}"),
    "GET /api/chat/stream/<message_id>": Row(OWNER_ONLY),
    "POST /api/chat/stream/<message_id>/stop": Row((401, 404, 404, 202)),
    "GET /api/chat/active": Row(ANY_USER),
}
"""Streams are opened and closed. HEAD gets the statuses of GET."""


def routes(app: Flask) -> list[str]:
    rules = ((method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ())
    return sorted(f"{method} {rule}" for method, rule in rules if method not in {"HEAD", "OPTIONS"})


def new_app(**settings: str) -> Flask:
    return live.new_app(**SETTINGS | settings)


def bearer(user: str, org: str) -> dict[str, str]:
    token = jwt.encode({"sub": user, "org": org, "exp": time.time() + 86_400}, SECRET, "HS256")
    return {"Authorization": f"Bearer {token}"}


_numbers = itertools.count()


CHAT_ID = "chat-1"


class Owner:
    """A new user with an object of each kind."""

    def __init__(self, app: Flask) -> None:
        self.user = f"ada-{next(_numbers)}"
        self._browser = app.test_client(use_cookies=False)
        self.owned: dict[str, str] = {}
        for name, create in CREATE.items():
            self.owned[name] = create(self)

    def callers(self) -> list[dict[str, str]]:
        """In the order of `Row.statuses`."""
        return [{}, bearer(f"eve-beside-{self.user}", "home"), bearer(self.user, "elsewhere"), bearer(self.user, "home")]

    def post(self, path: str, json: Any) -> Any:
        return self._browser.post(path, json=json, headers=bearer(self.user, "home"))


def _message(owner: Owner) -> str:
    """A message of the chat CHAT_ID, whose reply is still running."""
    parts = [{"type": "text", "text": f"/slow 60 {PRIVATE_TEXT}"}]
    content = {"id": CHAT_ID, "messages": [{"role": "user", "parts": parts}]}
    with owner.post("/api/chat/stream?protocol=ai-sdk", content) as response:
        return str(response.headers["X-Message-ID"])


def _audio(owner: Owner) -> str:
    body = {"message": PRIVATE_TEXT, "message_type": "audio", "audio_base64": "QUJD", "audio_format": "ogg"}
    return quote(owner.post("/api/chat", body).json["voice_audio_url"], safe="")


def _conversation(owner: Owner) -> str:
    return str(owner.post("/api/conversations", {"title": PRIVATE_TEXT}).json["id"])


def _conversation_message(owner: Owner) -> str:
    conversation = owner.owned["uuid:conversation_id"]
    return str(owner.post(f"/api/conversations/{conversation}/messages", {"content": PRIVATE_TEXT}).json["id"])


def _response(owner: Owner) -> str:
    body = {"model": "echo", "input": PRIVATE_TEXT, "background": True}
    return str(owner.post("/v1/responses", body).json["id"])


CREATE: dict[str, Callable[[Owner], str]] = {
    "audio": _audio,
    "message_id": _message,
    "chat_id": lambda _: CHAT_ID,
    "path:filename": lambda _: "chat.js",
    "path:name": lambda _: "default",
    "response_id": _response,
    "uuid:conversation_id": _conversation,
    "uuid:message_id": _conversation_message,
}
"""How an object is created, by the name of the variable in rules and queries."""


def is_refusal(path: str, content: Any) -> bool:
    """Whether an error has our shape or, under /v1, that of OpenAI."""
    return set(content) == {"error", "code", "request_id"} or (path.startswith("/v1/") and set(content) == {"error"})
