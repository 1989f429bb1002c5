import pytest

from tests.api.origin_requests import ALLOWED_ORIGIN, ANONYMOUS, OWN_ORIGIN, send
from tests.live import new_app


@pytest.fixture
def app():
    return new_app(**ANONYMOUS)


ALLOWED = {
    "our page, in a current browser": {"Sec_Fetch_Site": "same-origin"},
    "our page, in an older browser": {"Origin": OWN_ORIGIN},
    "our page, with both headers": {"Sec_Fetch_Site": "same-origin", "Origin": OWN_ORIGIN},
    "an allowed page": {"Sec_Fetch_Site": "cross-site", "Origin": ALLOWED_ORIGIN},
    "no browser and no cookie": {"cookie": False},
    "no browser, with an origin": {"cookie": False, "Origin": OWN_ORIGIN},
}
FORBIDDEN = {
    "no page at all": {},
    "another site's page": {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"},
    "another page of our site": {"Sec_Fetch_Site": "same-site", "Origin": "https://blog.example"},
    "a form, which sends no origin": {"Sec_Fetch_Site": "cross-site"},
    "a sandboxed frame": {"Origin": "null"},
    "an older browser elsewhere": {"Origin": "https://evil.example"},
    "an older browser elsewhere without a cookie": {"Origin": "https://evil.example", "cookie": False},
    "our page over plain HTTP": {"Origin": "http://chat.example"},
    "a host that ends like ours": {"Origin": "https://evilchat.example"},
    "a host that begins like ours": {"Origin": "https://chat.example.evil"},
    "another port": {"Origin": f"{OWN_ORIGIN}:8443"},
    "an allowed host with another scheme": {"Origin": "http://friend.example"},
    "a subdomain of an allowed host": {"Origin": "https://x.friend.example"},
    "a typed URL": {"Sec_Fetch_Site": "none"},
}


@pytest.mark.parametrize("headers", ALLOWED.values(), ids=ALLOWED)
def test_own_and_allowed_pages_may_send_requests(app, headers):
    assert send(app, **headers).status_code == 201


@pytest.mark.parametrize("headers", FORBIDDEN.values(), ids=FORBIDDEN)
def test_other_pages_may_not_send_requests(app, headers):
    response = send(app, **headers)

    assert (response.status_code, response.json["code"]) == (403, "forbidden")
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "cross-site", "Origin": ALLOWED_ORIGIN}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_other_pages_may_not_read(app, headers, status):
    assert send(app, "GET", "/api/chat/active", **headers).status_code == status


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/chat.js"])
def test_links_from_other_sites_work(app, path):
    with send(app, "GET", path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") as response:
        assert response.status_code == 200


def test_own_origin_may_be_https_or_http_without_a_trusted_proxy(app):
    app = new_app(**ANONYMOUS | {"TRUSTED_PROXY_HOPS": "0"})

    for origin in (OWN_ORIGIN, "http://chat.example"):
        assert send(app, Origin=origin).status_code == 201
    assert send(app, Origin="ftp://chat.example").status_code == 403
