import pytest

from tests.api.origin_requests import ALLOWED_ORIGIN, ANONYMOUS, OWN_ORIGIN, send
from tests.live import new_app


@pytest.fixture
def app():
    return new_app(**ANONYMOUS)


def test_an_allowed_page_may_read_responses(app):
    for response in (send(app, Origin=ALLOWED_ORIGIN), send(app, "GET", "/api/nowhere", Origin=ALLOWED_ORIGIN)):
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        assert exposed == {"Location", "X-Message-ID", "X-On-Disconnect", "X-Request-ID", "Retry-After"}
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

    assert (response.status_code, response.data) == (204, b"")
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for name in ("Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Chat-Resume", "Authorization"):
        assert name in response.headers["Access-Control-Allow-Headers"]
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert "Set-Cookie" not in response.headers


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
