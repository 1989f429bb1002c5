import pytest

from bff.auth.identity import COOKIE
from tests.live import new_app

FRIEND = "https://friend.example"
ANONYMOUS = {"AUTH_MODE": "anonymous", "TRUSTED_PROXY_HOPS": "1", "CORS_ALLOW_ORIGINS": FRIEND}
OWN = "https://chat.example"
BEHIND_TLS = {"Host": "chat.example", "X-Forwarded-Proto": "https"}
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def app():
    return new_app(**ANONYMOUS)


def ask(app, method: str = "POST", path: str = "/api/ticket", *, cookie: bool = True, **headers: str):
    browser = app.test_client(use_cookies=False)
    fields = BEHIND_TLS | {name.replace("_", "-"): text for name, text in headers.items()}
    return browser.open(path, method=method, headers=fields | ({"Cookie": f"{COOKIE}=x"} if cookie else {}))


ALLOWED = {
    "our page, in a browser of today": {"Sec_Fetch_Site": "same-origin"},
    "our page, in an older browser": {"Origin": OWN},
    "our page, in both ways": {"Sec_Fetch_Site": "same-origin", "Origin": OWN},
    "a friend's page": {"Sec_Fetch_Site": "cross-site", "Origin": FRIEND},
    "no browser and no cookie": {"cookie": False},
    "no browser that says where it is": {"cookie": False, "Origin": OWN},
}
FORBIDDEN = {
    "no page at all": {},
    "another site's page": {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"},
    "another page of our site": {"Sec_Fetch_Site": "same-site", "Origin": "https://blog.example"},
    "a form, which sends no origin": {"Sec_Fetch_Site": "cross-site"},
    "a sandboxed frame": {"Origin": "null"},
    "an older browser elsewhere": {"Origin": "https://evil.example"},
    "an older browser elsewhere without a cookie": {"Origin": "https://evil.example", "cookie": False},
    "somebody who changes our page on its way": {"Origin": "http://chat.example"},
    "a host that ends like ours": {"Origin": "https://evilchat.example"},
    "a host that begins like ours": {"Origin": "https://chat.example.evil"},
    "another port": {"Origin": f"{OWN}:8443"},
    "a friend's host on another scheme": {"Origin": "http://friend.example"},
    "a friend's subdomain": {"Origin": "https://x.friend.example"},
    "what somebody typed": {"Sec_Fetch_Site": "none"},
}


@pytest.mark.parametrize("said", ALLOWED.values(), ids=ALLOWED)
def test_our_own_page_and_its_friends_may_change_things(app, said):
    assert ask(app, **said).status_code == 201


@pytest.mark.parametrize("said", FORBIDDEN.values(), ids=FORBIDDEN)
def test_other_pages_may_not(app, said):
    response = ask(app, **said)

    assert (response.status_code, response.json["code"]) == (403, "forbidden")
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "cross-site", "Origin": FRIEND}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_other_pages_may_not_even_read(app, said, status):
    assert ask(app, "GET", "/api/chat/active", **said).status_code == status


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/chat.js"])
def test_a_link_from_elsewhere_leads_to_the_page(app, path):
    with ask(app, "GET", path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") as response:
        assert response.status_code == 200


def test_where_tls_ends_is_not_known_our_origin_may_be_either(app):
    app = new_app(**ANONYMOUS | {"TRUSTED_PROXY_HOPS": "0"})

    for origin in (OWN, "http://chat.example"):
        assert ask(app, Origin=origin).status_code == 201
    assert ask(app, Origin="ftp://chat.example").status_code == 403


# What a friend's page may read


def test_a_friends_page_may_read_what_it_gets(app):
    for response in (ask(app, Origin=FRIEND), ask(app, "GET", "/api/nowhere", Origin=FRIEND)):
        assert response.headers["Access-Control-Allow-Origin"] == FRIEND
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        assert exposed == {"Location", "X-Message-ID", "X-Request-ID", "Retry-After"}
        assert "Origin" in response.vary


@pytest.mark.parametrize("origin", ["", OWN, "https://evil.example", "null"])
def test_nobody_else_is_told_anything_about_origins(app, origin):
    for response in (ask(app, Origin=origin), ask(app, "OPTIONS", Origin=origin, Access_Control_Request_Method="POST")):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
        assert "Origin" in response.vary, "or a cache would give one's answer to the other"


def test_a_friends_browser_is_told_beforehand_what_it_may_send(app):
    response = ask(app, "OPTIONS", "/api/chat/stream", cookie=False, Origin=FRIEND, Access_Control_Request_Method="POST")

    assert (response.status_code, response.data) == (204, b"")
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for name in ("Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Chat-Resume", "Authorization"):
        assert name in response.headers["Access-Control-Allow-Headers"]
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert "Set-Cookie" not in response.headers


def test_a_friends_browser_learns_that_we_drain_and_not_only_that_it_failed(app):
    app.extensions["chat_bff"].streams.draining = True

    assert ask(app, "OPTIONS", Origin=FRIEND, Access_Control_Request_Method="POST").status_code == 204
    response = ask(app, Origin=FRIEND)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (503, FRIEND)


def test_without_friends_no_answer_mentions_origins():
    app = new_app(**ANONYMOUS | {"CORS_ALLOW_ORIGINS": ""})

    response = ask(app, Origin=OWN)

    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    assert "Vary" not in response.headers
