"""The doors that ask the engine, and a client that knocks on them; the engine is a stand-in, or a double of the library."""

from typing import Any, NamedTuple
from urllib.parse import quote

from flask.testing import FlaskClient

from tests.live import ADA, new_app
from tests.wire_server import Request

ENGINE = "http://engine.test"
KEY = "the-engines-key-that-must-not-leave"
RECORDING = "/api/v1/audio/replies/unfoldingWord/ada/1.mp3"
NOBODY = "http://127.0.0.1:9"
"""Where nobody listens."""


class Door(NamedTuple):
    method: str
    path: str
    content: Any
    engine_path: str


USER = "/api/v1/orgs/unfoldingWord/users/ada"
DOORS = {
    "chat": Door("POST", "/api/chat", {"message": "hello"}, "/api/v1/chat"),
    "history": Door("GET", "/api/chat/history", None, f"{USER}/history"),
    "newest": Door("GET", "/api/chat/history?order=newest", None, f"{USER}/history"),
    "preferences": Door("GET", "/api/preferences", None, f"{USER}/preferences"),
    "prefer": Door("PUT", "/api/preferences", {"response_language": "en"}, f"{USER}/preferences"),
    "audio": Door("GET", "/api/audio", None, RECORDING),
}
JSON_DOORS = {name: door for name, door in DOORS.items() if name != "audio"}


def client(engine_url: str = ENGINE, **settings: str) -> FlaskClient:
    """The broker is down for all of them."""
    environment = {
        "ENGINE_BASE_URL": engine_url,
        "ENGINE_API_KEY": KEY,
        "BROKER_BASE_URL": NOBODY,
        "MESSAGES_PER_MINUTE": "100000",
        **settings,
    }
    app = new_app(**environment)
    app.extensions["engine_url"] = engine_url
    return app.test_client()


def knock(browser: FlaskClient, door: Door | str, **headers: str) -> Any:
    door = DOORS[door] if isinstance(door, str) else door
    path = door.path
    if path == "/api/audio":
        path = f"{path}?url={quote(browser.application.extensions['engine_url'] + RECORDING, safe='')}"
    fields = ADA | {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.open(path, method=door.method, json=door.content, headers=fields)


def code(response: Any) -> tuple[int, str]:
    content = response.get_json()
    assert set(content) == {"error", "code", "request_id"}
    assert content["request_id"] == response.headers["X-Request-ID"]
    return response.status_code, content["code"]


def query(request: Request) -> str:
    return request.path.partition("?")[2]
