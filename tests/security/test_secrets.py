"""Secrets never leave the process: each one is a canary, and all output is searched for it."""

import gc
import json
import re
import time
from dataclasses import fields
from pathlib import Path
from uuid import UUID

import jwt
import pytest

from bff import create_app
from bff.broker.app import build_broker
from bff.config.environment import load_settings
from bff.config.settings import Settings
from bff.engine.app import create_engine
from bff.errors import SettingsError
from tests.live import FOLDER, Browser, eventually
from tests.redis_server import RedisServer
from tests.security.matrix import MATRIX
from tests.wire_server import CUT, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

SECRETS = [field.metadata["name"] for field in fields(Settings) if field.metadata.get("secret")]
MARK = "canary"
URLS = {
    "HTTPS_PROXY": "http://ada:{}@127.0.0.1:1",
    "DATABASE_URL": f"sqlite:///{FOLDER}/{{}}.db",
    "REDIS_URL": "redis://:{}@127.0.0.1:1/0",
    "WEBHOOK_SECRET": f"whsec_{MARK}{'x' * 34}",
}
"""Secrets with a format of their own."""


def canaries() -> dict[str, str]:
    return {name: URLS.get(name, "{}").format(f"{MARK}-{name.lower()}-of-more-than-thirty-two-bytes") for name in SECRETS}


def bearer() -> dict[str, str]:
    token = jwt.encode({"sub": "ada", "exp": time.time() + 86_400}, canaries()["AUTH_JWT_SECRET"], "HS256")
    return {"Authorization": f"Bearer {token}"}


def request_as_json(request) -> bytes:
    return json.dumps(request.headers | {"detail": request.headers, "error": str(request)}).encode()


def failing_stream(request) -> list:
    if request.method == "POST":
        return [reply(b'{"status":"queued","message_id":"m-1","queue_position":1}')]
    data = f"event: error\ndata: {request.headers}\n\n".encode()
    return [stream_head(), chunk(data), LAST_CHUNK]


FAILURES = {
    "refuses us": lambda request: [reply(request_as_json(request), "401 Unauthorized")],
    "repeats what it was sent": lambda request: [reply(request_as_json(request), "422 Unprocessable Entity")],
    "breaks": lambda request: [reply(request_as_json(request), "500 Internal Server Error", "text/plain")],
    "answers something else": lambda request: [reply(request_as_json(request))],
    "is no HTTP server": lambda request: [request_as_json(request) + b"\r\n\r\n"],
    "sends us elsewhere": lambda request: [reply(b"", "307 Moved", Location=f"http://localhost:9/{request.headers}")],
    "says nothing": lambda _: [HANG],
    "hangs up": lambda _: [CUT],
    "fails in the stream": failing_stream,
}


class Broker(WireServer):
    def __init__(self) -> None:
        self.fails = next(iter(FAILURES))
        super().__init__(lambda request: FAILURES[self.fails](request))


NAMES = {
    "message_id": "m-1",
    "chat_id": "any",
    "response_id": f"resp_{UUID(int=3)}",
    "path:filename": "chat.js",
    "path:name": "default",
    "audio": "x",
    "uuid:conversation_id": str(UUID(int=1)),
    "uuid:message_id": str(UUID(int=2)),
}
"""Values for the variables of rules and queries."""


def responses_of_routes(browser: Browser, part: str = "") -> dict[str, str]:
    """By route, the responses to authenticated, unauthenticated and invalid requests.

    `part`: of the rules of routes that get valid contents only.
    """
    responses = {}
    for route, row in MATRIX.items():
        method, rule = route.split()
        if rule == "/api/diagnostics/stream" or part not in rule:
            continue  # The former takes two seconds and returns the time only.
        path = re.sub("<([^>]*)>", lambda variable: NAMES[variable[1]], rule) + row.query.format(**NAMES)
        texts = []
        for headers in (bearer(), bearer() | {"Authorization": "Bearer x.y.z"}, {}):
            browser.headers = headers
            for content in (row.json, *(() if part else (b'{"a":', b"\xff"))):
                with browser.request(method, path, content) as response:
                    texts.append(f"{response.status} {response.headers.items()} {response.read()!r}")
        responses[route] = "\n".join(texts)
    return responses


def canaries_in(text: str) -> list[str]:
    return [line[max(0, line.find(MARK) - 200) : line.find(MARK) + 100] for line in text.splitlines() if MARK in line]


def test_no_setting_is_secret_without_a_canary():
    assert len(set(canaries().values())) == len(SECRETS) >= 6
    assert all(MARK in canary for canary in canaries().values())


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory):
    """A Redis whose password is the canary."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), password=f"{MARK}redis_url-of-more-than-thirty-two-bytes")
    yield {"REDIS_URL": server.url}
    server.stop()


@pytest.mark.live
def test_no_secret_leaves_when_the_broker_fails(start, own_redis):
    with Broker() as broker:
        options = own_redis | {
            "AUTH_MODE": "jwt",
            "LOG_LEVEL": "DEBUG",
            "BROKER_BASE_URL": broker.url,
            "UPSTREAM_OPEN_SECONDS": "0.3",
        }
        server = start("gunicorn", **canaries() | options, GUNICORN_CMD_ARGS="--access-logfile - --log-level debug")
        browser = Browser(server)
        for number, broker.fails in enumerate(FAILURES):
            responses = responses_of_routes(browser, "/api/chat" if number else "")
            assert not canaries_in("\n".join(responses.values()))
            assert "upstream_" in responses["POST /api/chat/stream"]

    assert any(MARK in text for request in broker.requests for text in request.headers.values()), "the broker got the key"
    commands = [
        Path(f"/proc/{pid}/{what}").read_text()
        for pid in (server.process.pid, server.worker_pid)
        for what in ("cmdline", "comm")
    ]
    assert eventually(lambda: '"status": 50' in server.log, 10)
    assert not canaries_in(server.log + "\n".join(commands))


@pytest.mark.live
def test_no_secret_leaves_when_all_is_well(start, kind, own_redis):
    server = start(kind, **canaries() | own_redis | {"AUTH_MODE": "jwt", "LOG_LEVEL": "DEBUG", "BROKER_API_KEY": ""})

    responses = responses_of_routes(Browser(server))

    assert '"type":"complete"' in responses["POST /api/chat/stream"]
    assert not canaries_in("\n".join([*responses.values(), server.log]))


def test_no_secret_is_in_any_repr():
    settings = load_settings(canaries() | {"APP_ENV": "development", "AUTH_MODE": "jwt"})
    external = {"BROKER_BASE_URL": "http://localhost:9", "ENGINE_BASE_URL": "http://localhost:9"}
    apps = [
        create_app(settings),
        create_app(load_settings(canaries() | external | {"APP_ENV": "development", "AUTH_MODE": "proxy"})),
        build_broker(settings, canaries()["BROKER_API_KEY"]),
        create_engine(settings, canaries()["ENGINE_API_KEY"]),
    ]

    ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("bff.")]

    assert len(ours) > 2 * len(apps)
    assert not canaries_in("\n".join(repr(thing) for thing in [*ours, *(app.extensions for app in apps)]))


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_in_what_stops_a_start(name, tmp_path):
    (tmp_path / "secret").write_text(canaries()[name] + "\x01")

    for environment in ({name: canaries()[name] + "\x01"}, {f"{name}_FILE": str(tmp_path / "secret")}):
        with pytest.raises(SettingsError) as raised:
            load_settings({"APP_ENV": "development"} | environment)
        assert name in str(raised.value)
        assert MARK not in str(raised.value)
