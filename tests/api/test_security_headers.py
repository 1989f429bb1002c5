import pytest

from bff.auth.identity import COOKIE
from tests.live import Browser, new_app

TLS = {"X-Forwarded-Proto": "https"}


def client(**settings: str):
    return new_app(AUTH_MODE="anonymous", **settings).test_client(use_cookies=False)


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/chat.js", "/api/chat/active", "/nowhere"])
def test_every_response_has_security_headers(path):
    with client().get(path) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


def test_a_stream_has_security_headers():
    response = client().post("/api/chat/stream", json={"message": "hello"})

    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    response.get_data()


def test_the_page_runs_its_own_files_only():
    response = client().get("/")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))

    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    for inline in ("<style", "style=", "onclick", "javascript:", "<script>"):
        assert inline not in response.text


def test_user_data_is_not_cached():
    assert client().get("/api/chat/active").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("hops", "headers", "secure"), [("1", TLS, True), ("1", {}, False), ("0", TLS, False), ("2", TLS, True)]
)
def test_tls_is_detected_behind_any_number_of_trusted_proxies(hops, headers, secure):
    response = client(TRUSTED_PROXY_HOPS=hops).get("/api/chat/active", headers=headers)

    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ("Secure" in cookie) == secure
    assert ("Strict-Transport-Security" in response.headers) == secure


@pytest.mark.live
@pytest.mark.parametrize("hops", ["0", "1"])
def test_gunicorn_trusts_no_proxy(start, hops):
    server = start("gunicorn", AUTH_MODE="anonymous", TRUSTED_PROXY_HOPS=hops, FORWARDED_ALLOW_IPS="*")
    browser = Browser(server)
    browser.headers = dict(TLS)

    with browser.request("GET", "/api/chat/active", X_Forwarded_Ssl="on") as reply:
        assert ("Secure" in reply.headers["Set-Cookie"]) == (hops == "1")
    browser.headers = {}
    with browser.request("GET", "/healthz", X_Forwarded_Protocol="ssl", X_Forwarded_Ssl="on", Script_Name="/x") as reply:
        assert reply.status == 200
        assert "Strict-Transport-Security" not in reply.headers
