"""The routes that send requests to the engine, and a client for them; the engine is a fake server or a library's mock."""

from typing import Any, NamedTuple
from urllib.parse import quote

from flask.testing import FlaskClient

from tests.live import ADA, new_app
from tests.wire_server import Request

ENGINE = "http://engine.test"
KEY = "the-engines-key-that-must-not-leave"
RECORDING = "/api/v1/audio/replies/default/ada/1.mp3"
UNREACHABLE = "http://127.0.0.1:9"
"""Nothing listens there."""


class Route(NamedTuple):
    method: str
    path: str
    json: Any
    engine_path: str


USER = "/api/v1/orgs/default/users/ada"
ROUTES = {
    "chat": Route("POST", "/api/chat", {"message": "hello"}, "/api/v1/chat"),
    "history": Route("GET", "/api/chat/history", None, f"{USER}/history"),
    "newest": Route("GET", "/api/chat/history?order=newest", None, f"{USER}/history"),
    "preferences": Route("GET", "/api/preferences", None, f"{USER}/preferences"),
    "prefer": Route("PUT", "/api/preferences", {"response_language": "en"}, f"{USER}/preferences"),
    "audio": Route("GET", "/api/audio", None, RECORDING),
}
JSON_ROUTES = {name: route for name, route in ROUTES.items() if name != "audio"}


def client(engine_url: str = ENGINE, **settings: str) -> FlaskClient:
    """The broker is down: none of these routes needs it."""
    environment = {
        "ENGINE_BASE_URL": engine_url,
        "ENGINE_API_KEY": KEY,
        "BROKER_BASE_URL": UNREACHABLE,
        "MESSAGES_PER_MINUTE": "100000",
        **settings,
    }
    app = new_app(**environment)
    app.config["ENGINE_URL"] = engine_url
    return app.test_client()


def send(browser: FlaskClient, route: Route | str, **headers: str) -> Any:
    route = ROUTES[route] if isinstance(route, str) else route
    path = route.path
    if path == "/api/audio":
        path = f"{path}?url={quote(browser.application.config['ENGINE_URL'] + RECORDING, safe='')}"
    all_headers = ADA | {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.open(path, method=route.method, json=route.json, headers=all_headers)


def code(response: Any) -> tuple[int, str]:
    """The status and the code of an error response."""
    content = response.get_json()
    assert set(content) == {"error", "code", "request_id"}
    assert content["request_id"] == response.headers["X-Request-ID"]
    return response.status_code, content["code"]


def query(request: Request) -> str:
    return request.path.partition("?")[2]
