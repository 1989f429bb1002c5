import pytest

from tests.api.origin_requests import ALLOWED_ORIGIN, ANONYMOUS, APP_ORIGIN, OWN_ORIGIN, send
from tests.live import new_app

STAINLESS = "authorization,content-type,x-stainless-arch,x-stainless-retry-count"
"""What OpenAI's client asks for."""


@pytest.fixture
def app():
    return new_app(**ANONYMOUS)


def test_an_allowed_page_may_read_responses(app):
    for response in (send(app, Origin=ALLOWED_ORIGIN), send(app, "GET", "/api/nowhere", Origin=ALLOWED_ORIGIN)):
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        workflow = {"x-workflow-run-id", "x-workflow-stream-tail-index"}
        assert exposed == {"Location", "X-Message-ID", "X-On-Disconnect", "X-Request-ID", "Retry-After"} | workflow
        assert "Origin" in response.vary


@pytest.mark.parametrize("origin", ["", OWN_ORIGIN, "https://evil.example", "null"])
def test_other_pages_get_no_cors_headers(app, origin):
    for response in (send(app, Origin=origin), send(app, "OPTIONS", Origin=origin, Access_Control_Request_Method="POST")):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
        assert "Origin" in response.vary, "a cache must not share responses between origins"


def test_a_preflight_request_is_answered(app):
    response = send(
        app, "OPTIONS", "/api/chat/stream", cookie=False, Origin=ALLOWED_ORIGIN, Access_Control_Request_Method="POST"
    )

    assert (response.status_code, response.data, response.content_type) == (204, b"", None)
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for name in ("Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Chat-Resume", "Authorization"):
        assert name in response.headers["Access-Control-Allow-Headers"]
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("origin", [ALLOWED_ORIGIN, APP_ORIGIN])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat/stream", "/nowhere"])
def test_all_requested_headers_are_allowed(app, path, origin):
    headers = {"Origin": origin, "Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": STAINLESS}
    response = send(app, "OPTIONS", path, cookie=False, **headers)

    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Headers"] == STAINLESS
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert {"Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method"} <= set(response.vary)


@pytest.mark.parametrize("requested", ["", " ", ",", "a b", "a:b", "x\x01", "é"])
def test_only_names_of_headers_are_repeated(app, requested):
    headers = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": requested}
    response = send(app, "OPTIONS", Origin=ALLOWED_ORIGIN, **headers)

    assert "Content-Type" in response.headers["Access-Control-Allow-Headers"]


def test_errors_and_streams_have_cors_headers(app):
    message, page = {"message": "hello"}, {"Origin": APP_ORIGIN, "Sec_Fetch_Site": "cross-site"}
    responses = [
        send(app, "POST", "/api/chat/stream", message, **page),
        send(app, "POST", "/api/chat/stream", {}, **page),
        send(app, "DELETE", "/api/chat/active", **page),
        send(app, "GET", "/nowhere", **page),
        send(app, "POST", "/v1/chat/completions", {"model": "none", "messages": [{"role": "user", "content": "x"}]}, **page),
        send(app, "GET", "/api/diagnostics/stream", **page),
    ]

    assert [response.status_code for response in responses] == [200, 400, 405, 404, 404, 200]
    for response in responses:
        response.close()
        assert response.headers["Access-Control-Allow-Origin"] == APP_ORIGIN
        assert "Origin" in response.vary


def test_a_draining_process_sends_cors_headers(app):
    app.extensions["chat_bff"].streams.draining = True

    assert send(app, "OPTIONS", Origin=ALLOWED_ORIGIN, Access_Control_Request_Method="POST").status_code == 204
    response = send(app, Origin=ALLOWED_ORIGIN)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (503, ALLOWED_ORIGIN)


def test_without_allowed_origins_there_are_no_cors_headers():
    app = new_app(**ANONYMOUS | {"CORS_ALLOW_ORIGINS": ""})

    response = send(app, Origin=OWN_ORIGIN)

    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    assert "Vary" not in response.headers
