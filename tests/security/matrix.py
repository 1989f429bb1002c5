"""Every route, and who may do what there: a route that is missing here fails the tests until somebody has thought of it."""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import jwt
from flask import Flask

from tests import live

SECRET = "s" * 32
ENVIRONMENT = {"AUTH_MODE": "jwt", "AUTH_JWT_SECRET": SECRET, "LOG_LEVEL": "ERROR"}
WORDS = "what only its owner may read"


class Row(NamedTuple):
    """The statuses for: nobody, another user, the same user of another org, the owner; `json` is the owner's body.

    `query` may name what is owned, as `{audio}`.
    """

    statuses: tuple[int, int, int, int]
    json: Any = None
    query: str = ""


EVERYBODY = Row((200, 200, 200, 200))
USERS = (401, 200, 200, 200)
OWNER = (401, 404, 404, 200)

MATRIX = {
    "GET /": EVERYBODY,
    "GET /static/<path:filename>": EVERYBODY,
    "GET /healthz": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /openapi.json": EVERYBODY,
    "GET /v1/models": Row(USERS),
    "GET /v1/models/<path:name>": Row(USERS),
    "POST /v1/chat/completions": Row(
        USERS, {"model": "default", "stream": True, "messages": [{"role": "user", "content": WORDS}]}
    ),
    "GET /api/chat/stream/<chat_id>/stream": Row((401, 204, 204, 200)),
    "GET /api/agents": Row(USERS),
    "GET /api/conversations": Row(USERS),
    "POST /api/conversations": Row((401, 201, 201, 201), {"title": WORDS}),
    "GET /api/conversations/<uuid:conversation_id>": Row(OWNER),
    "PATCH /api/conversations/<uuid:conversation_id>": Row(OWNER, {"title": "another"}),
    "DELETE /api/conversations/<uuid:conversation_id>": Row((401, 404, 404, 204)),
    "GET /api/conversations/<uuid:conversation_id>/messages": Row(OWNER),
    "POST /api/conversations/<uuid:conversation_id>/messages": Row((401, 404, 404, 201), {"content": WORDS}),
    "PUT /api/conversations/<uuid:conversation_id>/messages/<uuid:message_id>": Row(OWNER, {"content": "said better"}),
    "GET /api/conversations/<uuid:conversation_id>/stream": Row(OWNER),
    "POST /api/conversations/<uuid:conversation_id>/stop": Row((401, 404, 404, 202)),
    "GET /metrics": EVERYBODY,
    "GET /api/diagnostics/stream": EVERYBODY,
    "GET /api/chat/history": Row(USERS),
    "GET /api/preferences": Row(USERS),
    "PUT /api/preferences": Row(USERS, {"response_language": "en"}),
    "GET /api/audio": Row(OWNER, query="?url={audio}"),
    "POST /api/chat": Row(USERS, {"message": "hello"}),
    "POST /api/ticket": Row((401, 201, 201, 201)),
    "POST /api/chat/stream": Row(USERS, {"message": WORDS}),
    "GET /api/chat/stream/<message_id>": Row(OWNER),
    "POST /api/chat/stream/<message_id>/stop": Row((401, 404, 404, 202)),
    "GET /api/chat/active": Row(USERS),
}
"""What streams is opened and closed. HEAD is as GET; OPTIONS says nothing of anybody."""


def routes(app: Flask) -> list[str]:
    found = ((method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ())
    return sorted(f"{method} {rule}" for method, rule in found if method not in {"HEAD", "OPTIONS"})


def new_app(**settings: str) -> Flask:
    return live.new_app(**ENVIRONMENT | settings)


def bearer(user: str, org: str) -> dict[str, str]:
    token = jwt.encode({"sub": user, "org": org, "exp": time.time() + 86_400}, SECRET, "HS256")
    return {"Authorization": f"Bearer {token}"}


_numbers = itertools.count()


class Owner:
    """A user that nobody else is, and what is hers."""

    def __init__(self, app: Flask) -> None:
        self.user = f"ada-{next(_numbers)}"
        self._browser = app.test_client(use_cookies=False)
        self.owned: dict[str, str] = {}
        for name, own in OWNED.items():
            self.owned[name] = own(self)

    def callers(self) -> list[dict[str, str]]:
        """In the order of `Row.statuses`."""
        return [{}, bearer(f"eve-beside-{self.user}", "home"), bearer(self.user, "elsewhere"), bearer(self.user, "home")]

    def post(self, path: str, json: Any) -> Any:
        return self._browser.post(path, json=json, headers=bearer(self.user, "home"))


def _message(owner: Owner) -> str:
    """One that is being answered while others try to get at it."""
    with owner.post("/api/chat/stream", {"message": f"/slow 60 {WORDS}"}) as response:
        return str(response.headers["X-Message-ID"])


def _audio(owner: Owner) -> str:
    spoken = {"message": WORDS, "message_type": "audio", "audio_base64": "QUJD", "audio_format": "ogg"}
    return quote(owner.post("/api/chat", spoken).json["voice_audio_url"], safe="")


def _conversation(owner: Owner) -> str:
    return str(owner.post("/api/conversations", {"title": WORDS}).json["id"])


def _said(owner: Owner) -> str:
    conversation = owner.owned["uuid:conversation_id"]
    return str(owner.post(f"/api/conversations/{conversation}/messages", {"content": WORDS}).json["id"])


OWNED: dict[str, Callable[[Owner], str]] = {
    "audio": _audio,
    "message_id": _message,
    "chat_id": lambda _: "any-of-the-clients-own",
    "path:filename": lambda _: "chat.js",
    "path:name": lambda _: "default",
    "uuid:conversation_id": _conversation,
    "uuid:message_id": _said,
}
"""For each of the rules' and queries' variables, how its owner comes by one."""


def is_refusal(path: str, content: Any) -> bool:
    """Whether an error has the one shape; at a door for clients of OpenAI's it may have theirs."""
    return set(content) == {"error", "code", "request_id"} or (path.startswith("/v1/") and set(content) == {"error"})
