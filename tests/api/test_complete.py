"""POST /api/chat: the whole reply as JSON."""

import json

import pytest
import responses

from tests.api.engine_requests import ENGINE, KEY, ROUTES, client, code, send
from tests.live import ADA
from tests.wire_server import WireServer, reply

ENGINE_URL = ENGINE + ROUTES["chat"].engine_path
REPLY = {
    "message_id": "m-1",
    "responses": ["first", "second"],
    "response_language": "en",
    "voice_audio_base64": None,
    "voice_audio_url": "http://engine.test/x",
    "attachments": [{"a": 1}],
}


def post_message(browser, body: bytes, **headers: str):
    fields = ADA | {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.post("/api/chat", data=body, headers=fields)


@responses.activate
def test_the_engines_reply_is_passed_on_unchanged():
    responses.post(ENGINE_URL, json=REPLY)

    response = post_message(client(), b'{"message": "hello"}')

    assert (response.status_code, response.get_json()) == (200, REPLY)
    assert responses.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


@responses.activate
def test_the_identity_comes_from_the_session_only():
    responses.post(ENGINE_URL, json=REPLY)
    body = {
        "message": "hello",
        "user_id": "eve",
        "org": "evil",
        "org_id": "evil",
        "client_id": "evil",
        "client_message_id": "1",
    }

    post_message(client(CLIENT_ID="web"), json.dumps(body).encode(), Idempotency_Key="2")

    assert json.loads(responses.calls[0].request.body) == {
        "client_id": "web",
        "user_id": "ada",
        "org": "default",
        "message": "hello",
        "message_type": "text",
    }


@responses.activate
def test_audio_is_passed_to_the_engine_with_its_bare_format():
    responses.post(ENGINE_URL, json=REPLY)
    audio = {"message": "", "message_type": "audio", "audio_base64": "QUJD", "audio_format": "Audio/MPEG"}

    assert post_message(client(), json.dumps(audio).encode()).status_code == 200

    assert json.loads(responses.calls[0].request.body).items() >= (audio | {"audio_format": "mp3"}).items()


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"{", 400, "invalid_request"),
        (b'{"message": "x", "more": Infinity}', 400, "invalid_request"),
        (b'{"message": " "}', 400, "invalid_request"),
        (b'{"message": "\\ud83d"}', 400, "invalid_request"),
        (b'{"message": "", "message_type": "audio"}', 400, "invalid_request"),
        (b'{"message": "' + b"x" * 5000 + b'"}', 413, "too_large"),
    ],
)
@responses.activate
def test_an_invalid_body_is_refused_without_a_request(body, status, expected):
    assert code(post_message(client(MAX_BODY_BYTES="4096"), body)) == (status, expected)
    assert not responses.calls


@responses.activate
def test_messages_are_rate_limited():
    responses.post(ENGINE_URL, json=REPLY)
    browser = client(MESSAGES_PER_MINUTE="2")

    sent = [send(browser, "chat") for _ in range(3)]

    assert [response.status_code for response in sent] == [200, 200, 429]
    assert sent[2].headers["Retry-After"]


def test_a_reply_may_be_as_large_as_an_event():
    large = reply(json.dumps(REPLY | {"voice_audio_base64": "A" * 3 * 2**20}).encode())

    with WireServer([large]) as engine:
        assert send(client(engine.url), "chat").status_code == 200
        assert code(send(client(engine.url, MAX_EVENT_BYTES="1048576"), "chat")) == (502, "upstream_error")


def test_the_engines_connection_is_reused():
    with WireServer([reply(json.dumps(REPLY).encode())]) as engine:
        browser = client(engine.url)
        assert [send(browser, "chat").status_code for _ in range(3)] == [200] * 3

        assert (len(engine.requests), engine.open_connections) == (3, 1)
