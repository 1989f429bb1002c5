"""The same person by a token, by a proxy's header and by a cookie, with a name that clients spell in different bytes."""

import http.client
import json
import time
import unicodedata
from contextlib import closing

import jwt
import pytest
from itsdangerous import URLSafeSerializer

from tests.live import PROXY_SECRET, new_app

SECRET = "s" * 32
NAMES = ["jos\u00e9", "voil\u00e0", "\u0105", "\u65e5\u672c\u8a9e", "\u1ec7 \u0958"]
"""The bytes of the second end with 0xA0, those of the third with 0x85: spaces in Latin-1."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Of all servers: each name is mapped to an org of its own."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "orgs.json").write_text(json.dumps({name: f"Org {number}" for number, name in enumerate(NAMES)}))
    return {"DATABASE_URL": f"sqlite:///{folder}/chat.db", "ORG_MAP_FILE": f"{folder}/orgs.json"}


@pytest.fixture(scope="module")
def token_client(settings):
    return new_app(AUTH_MODE="jwt", AUTH_JWT_SECRET=SECRET, **settings).test_client()


def create_with_token(client, name: str) -> str:
    """A conversation's id."""
    token = jwt.encode({"sub": name, "exp": time.time() + 60}, SECRET, "HS256")
    response = client.post("/api/conversations", json={}, headers={"Authorization": f"Bearer {token}"})
    return str(response.json["id"])


def get(port: int, path: str, user: bytes) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request("GET", path, headers={"X-Proxy-Secret": PROXY_SECRET, "X-Forwarded-User": user})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.live
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_header_and_a_token_name_the_same_user(share, kind, settings, token_client, name, form):
    server = share(kind, **settings)
    conversation_id = create_with_token(token_client, name)

    status, conversation = get(server.port, f"/api/conversations/{conversation_id}", unicodedata.normalize(form, name).encode())

    assert (status, conversation.get("id")) == (200, conversation_id)


@pytest.mark.live
@pytest.mark.parametrize("name", [b"jos\xe9", b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_a_header_that_is_not_utf_8_is_refused(share, kind, settings, name):
    status, error = get(share(kind, **settings).port, "/api/conversations", name)

    assert (status, error["code"]) == (401, "unauthorized")


def test_a_cookie_and_a_token_name_the_same_user(settings, token_client):
    key = "k" * 32
    cookie = URLSafeSerializer(key, salt="bff.identity.anonymous").dumps("jose\u0301")
    browser = new_app(AUTH_MODE="anonymous", SECRET_KEY=key, **settings).test_client()
    browser.set_cookie("chat_user", cookie)

    assert browser.get(f"/api/conversations/{create_with_token(token_client, NAMES[0])}").status_code == 200


def test_tokens_that_spell_a_name_differently_name_the_same_user(token_client):
    conversation_id = create_with_token(token_client, "jose\u0301")
    token = jwt.encode({"sub": NAMES[0], "exp": time.time() + 60}, SECRET, "HS256")

    response = token_client.get(f"/api/conversations/{conversation_id}", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == 200


@pytest.mark.parametrize("cookie", ["session=\xff", "other=jos\xe9; session="])
def test_a_cookie_that_is_not_utf_8_is_refused(settings, cookie):
    app = new_app(AUTH_MODE="jwt", AUTH_JWT_SECRET=SECRET, AUTH_JWT_COOKIE="session", **settings)

    response = app.test_client(use_cookies=False).get("/api/conversations", environ_overrides={"HTTP_COOKIE": cookie})

    assert response.status_code == 401
