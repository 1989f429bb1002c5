"""Ten thousand odd requests over all routes: none causes a server error, a leak or a wrong shape of error."""

import io
import json
import re
import sys
from collections import Counter
from contextlib import closing, nullcontext
from itertools import islice
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from bff.api import diagnostics
from tests.live import eventually
from tests.security.matrix import SECRET, bearer, is_refusal, new_app, routes

REQUESTS = 10_000
MAX_FRAMES = 20
"""To read of a stream: some are endless."""

app = new_app(
    ECHO_WORD_SECONDS="0",
    QUEUE_DEPTH_PER_USER="3",
    MESSAGES_PER_MINUTE="1000000",
    MAX_EVENT_BYTES="65536",
    MAX_BODY_BYTES="65536",
)
ROUTES = routes(app)
ADA = bearer("ada", "home")

odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "..", ".", "/", "//", "%2e%2e%2f", "%00", "\x00", "a\r\nX-Evil: 1", "ä", "日本", "\ud800", "-1"])
    | st.sampled_from(["NaN", "1e999", "9" * 400, "null", "${x}", "{{7*7}}", "' OR 1=1 --", "<script>", "A" * 3000]),
)
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["message", "audio_base64", "x"]), inner),
    max_leaves=5,
)
odd_body = st.one_of(
    st.none(),
    st.binary(max_size=40),
    odd_json.map(lambda content: json.dumps(content).encode()),
    st.sampled_from([b"[" * 30_000, b'{"a":' * 5_000, b"\xff\xfe", b'{"message":"\\ud800"}', b"x" * 70_000, b"0" * 5_000]),
)
HEADERS = ["Origin", "Host", "Cookie", "Authorization", "Content-Type", "Content-Length", "Content-Encoding", "Range", "Accept"]
HEADERS += ["Last-Event-ID", "Idempotency-Key", "X-Request-ID", "X-Forwarded-For", "X-Forwarded-Proto", "Sec-Fetch-Site"]
HEADERS += ["Access-Control-Request-Method", "Transfer-Encoding", "If-None-Match", "If-Modified-Since", "X-Chat-Resume"]
QUERY = ["ticket", "last_event_id", "ids", "limit", "offset", "cursor", "order", "url", "agentId", "messageId", "regenerate"]
odd_header = st.tuples(st.sampled_from(HEADERS), odd_text.map(lambda text: re.sub(r"[^\x20-\x7e\x80-\xff]", "", text)))
odd_request = st.tuples(
    st.sampled_from(8 * [""] + ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X-ODD"]),
    st.lists(odd_text, min_size=3, max_size=3),
    st.dictionaries(st.sampled_from(QUERY), odd_text, max_size=2),
    st.lists(odd_header, max_size=3),
    odd_body,
    st.booleans(),
)
statuses: Counter[int] = Counter()


def call(
    route: str, method: str, parts: list[str], query: dict[str, str], fields: list, body: bytes | None, authenticated: bool
):
    """Calls the app as a server does. `method`: "" for the one of the route. `parts`: values for the variables of the rule."""
    rule_method, rule = route.split()
    values = iter(parts)
    path = re.sub(r"<[^>]*>", lambda _: next(values), rule)
    environ = {
        "REQUEST_METHOD": method or rule_method,
        "PATH_INFO": path.encode("utf-8", "replace").decode("latin-1"),
        "QUERY_STRING": urlencode({name: text.encode("utf-8", "replace") for name, text in query.items()}),
        "SERVER_NAME": "chat.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": sys.stderr,
        "CONTENT_TYPE": "application/json",
    }
    if body is not None:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, text in [*(ADA.items() if authenticated else ()), *fields]:
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = text
    response = {}

    def start_response(status, headers, _=None):
        response.update(status=int(status.split()[0]), headers=Headers(headers))

    frames = app.wsgi_app(environ, start_response)
    with closing(frames) if hasattr(frames, "close") else nullcontext():
        return response["status"], response["headers"], b"".join(islice(frames, MAX_FRAMES)), environ["REQUEST_METHOD"]


def check(path: str, status: int, headers: Headers, body: bytes, method: str) -> None:
    statuses[status] += 1
    assert status < 500, body
    assert b"Traceback" not in body
    assert b'File "' not in body
    assert SECRET.encode() not in body
    assert "X-Evil" not in headers
    assert "Location" not in headers or headers["Location"].startswith("/api/"), "no redirect to the host of a Host header"
    assert headers["X-Content-Type-Options"] == "nosniff"
    if status >= 400 and method != "HEAD":
        refusal = json.loads(body)
        assert is_refusal(path, refusal)
        assert refusal.get("request_id", headers["X-Request-ID"]) == headers["X-Request-ID"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_mutated_requests_cause_no_server_error(monkeypatch):
    monkeypatch.setattr(diagnostics, "TICK_SECONDS", 0.0)

    # Generating a request takes the most time, so each is sent to every route.
    @settings(max_examples=REQUESTS // len(ROUTES) + 1, suppress_health_check=list(HealthCheck), database=None)
    @given(odd_request)
    def run(request):
        for route in ROUTES:
            check(route.split()[1], *call(route, *request))

    run()

    assert statuses.total() >= REQUESTS
    assert {200, 201, 400, 401, 404, 405} <= set(statuses), statuses
    assert eventually(lambda: len(app.extensions["chat_bff"].streams) == 0, 20), "every slot is released"
