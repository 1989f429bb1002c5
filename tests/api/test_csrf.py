import pytest
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from bff import ChatBFF
from tests.api.origin_requests import ALLOWED_ORIGIN, ANONYMOUS, FORGERIES, NO_PAGE, OWN_ORIGIN, OWN_PAGES, forge, send
from tests.live import new_app, new_settings
from tests.security.matrix import SETTINGS as JWT
from tests.security.matrix import bearer

COOKIES = {"with our cookie": {"Cookie": "chat_user=x"}, "without a cookie": {}}
TOKEN = bearer("ada", "home")["Authorization"].partition(" ")[2]
TOKEN_COOKIE = {"Cookie": f"token={TOKEN}"}


@pytest.fixture(scope="module")
def app():
    return new_app(**ANONYMOUS)


@pytest.fixture(scope="module")
def jwt_app():
    return new_app(**JWT, AUTH_JWT_COOKIE="token", TRUSTED_PROXY_HOPS="1", CORS_ALLOW_ORIGINS=ALLOWED_ORIGIN)


@pytest.fixture(scope="module")
def proxy_app():
    return new_app(TRUSTED_PROXY_HOPS="1", CORS_ALLOW_ORIGINS=ALLOWED_ORIGIN)


@pytest.mark.parametrize("cookie", COOKIES.values(), ids=COOKIES)
@pytest.mark.parametrize("headers", [*OWN_PAGES.values(), *NO_PAGE.values()], ids=[*OWN_PAGES, *NO_PAGE])
def test_own_and_allowed_pages_and_other_clients_may_send_requests(app, headers, cookie):
    assert forge(app, "POST", "/api/ticket", cookie | headers).status_code == 201
    assert forge(app, "GET", "/api/chat/active", cookie | headers).status_code == 200


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
@pytest.mark.parametrize("cookie", COOKIES.values(), ids=COOKIES)
@pytest.mark.parametrize("headers", FORGERIES.values(), ids=FORGERIES)
def test_other_pages_may_not_send_requests(app, headers, cookie, method):
    response = forge(app, method, "/api/ticket" if method == "POST" else "/api/chat/active", cookie | headers)

    assert response.status_code == 403
    assert method == "HEAD" or response.json["code"] == "forbidden"
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/chat.js", "/openapi.json"])
def test_links_from_other_sites_work(app, path):
    with send(app, "GET", path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") as response:
        assert response.status_code == 200


def test_own_origin_may_be_https_or_http_without_a_trusted_proxy():
    app = new_app(**ANONYMOUS | {"TRUSTED_PROXY_HOPS": "0"})

    for origin in (OWN_ORIGIN, "http://chat.example"):
        assert send(app, Origin=origin).status_code == 201
    assert send(app, Origin="ftp://chat.example").status_code == 403


def test_a_client_with_a_cookie_jar_is_the_same_user_in_its_second_request(app):
    client = app.test_client()

    first = client.post("/api/ticket")
    second = client.post("/api/ticket")

    assert (first.status_code, second.status_code) == (201, 201)
    assert "Set-Cookie" in first.headers
    assert "Set-Cookie" not in second.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", FORGERIES.values(), ids=FORGERIES)
def test_the_cookie_of_a_token_is_protected(jwt_app, headers, method):
    path = "/api/ticket" if method == "POST" else "/api/chat/active"

    assert forge(jwt_app, method, path, TOKEN_COOKIE | headers).status_code == 403
    assert forge(jwt_app, method, path, TOKEN_COOKIE).status_code in {200, 201}


@pytest.mark.parametrize("cookie", [{}, TOKEN_COOKIE, {"Cookie": "AWSALB=a; chat_user=x"}], ids=["none", "ours", "others"])
@pytest.mark.parametrize("headers", FORGERIES.values(), ids=FORGERIES)
def test_a_request_with_a_valid_bearer_is_exempt(jwt_app, headers, cookie):
    bearer_header = {"Authorization": f"Bearer {TOKEN}"}

    assert forge(jwt_app, "POST", "/api/ticket", headers | cookie | bearer_header).status_code == 201


@pytest.mark.parametrize("credentials", ["Bearer", "Bearer forged", "Basic YTpi", "Negotiate x"])
def test_an_invalid_authorization_header_does_not_open_the_cookies_way(jwt_app, credentials):
    headers = FORGERIES["another site's page"] | TOKEN_COOKIE | {"Authorization": credentials}

    assert forge(jwt_app, "POST", "/api/ticket", headers).status_code == 401


@pytest.mark.parametrize("credentials", ["", " "])
def test_an_empty_authorization_header_does_not_exempt(jwt_app, credentials):
    headers = FORGERIES["another site's page"] | TOKEN_COOKIE | {"Authorization": credentials}

    assert forge(jwt_app, "POST", "/api/ticket", headers).status_code == 403


@pytest.mark.parametrize("cookie", [{}, {"Cookie": "_oauth2_proxy=x"}, {"Authorization": "Basic YTpi"}])
@pytest.mark.parametrize("headers", FORGERIES.values(), ids=FORGERIES)
def test_users_of_a_proxy_are_protected_whatever_it_knows_them_by(proxy_app, headers, cookie):
    assert forge(proxy_app, "POST", "/api/ticket", cookie | headers).status_code == 403
    assert forge(proxy_app, "POST", "/api/ticket", cookie).status_code == 201


def mounted(prefix):
    """A host application with our blueprints under a prefix."""
    host = Flask("host", static_folder=None)
    ChatBFF(host, url_prefix=prefix, settings=new_settings(**ANONYMOUS))
    host.wsgi_app = ProxyFix(host.wsgi_app)
    return host


@pytest.mark.parametrize("path", ["/api/chat/active", "/api/conversations", "/v1/models", "/api/diagnostics/stream"])
def test_gets_are_checked_under_a_host_applications_prefix(path):
    host = mounted("/assistant")

    for headers in FORGERIES.values():
        assert forge(host, "GET", f"/assistant{path}", headers).status_code == 403
    with forge(host, "GET", f"/assistant{path}", {}) as response:
        assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/chat.js", "/healthz", "/openapi.json"])
def test_links_work_under_a_host_applications_prefix_that_looks_like_the_apis(path):
    with forge(mounted("/api"), "GET", f"/api{path}", FORGERIES["a link"]) as response:
        assert response.status_code == 200
