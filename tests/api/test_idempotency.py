"""POST /api/chat: the whole answer at once."""

import json

import pytest
import responses

from tests.api.engine_requests import DOORS, ENGINE, KEY, client, code, knock
from tests.live import ADA
from tests.wire_server import WireServer, reply

ENGINE_URL = ENGINE + DOORS["chat"].engine_path
ANSWER = {
    "message_id": "m-1",
    "responses": ["first", "second"],
    "response_language": "en",
    "voice_audio_base64": None,
    "voice_audio_url": "http://engine.test/x",
    "attachments": [{"a": 1}],
}


def say(browser, body: bytes, **headers: str):
    fields = ADA | {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.post("/api/chat", data=body, headers=fields)


@responses.activate
def test_the_engines_answer_is_handed_on_whole():
    responses.post(ENGINE_URL, json=ANSWER)

    response = say(client(), b'{"message": "hello"}')

    assert (response.status_code, response.get_json()) == (200, ANSWER)
    assert responses.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


@responses.activate
def test_the_engine_is_told_who_asks_by_the_session_alone():
    responses.post(ENGINE_URL, json=ANSWER)
    said = {
        "message": "hello",
        "user_id": "eve",
        "org": "evil",
        "org_id": "evil",
        "client_id": "evil",
        "client_message_id": "1",
    }

    say(client(CLIENT_ID="web"), json.dumps(said).encode(), Idempotency_Key="2")

    assert json.loads(responses.calls[0].request.body) == {
        "client_id": "web",
        "user_id": "ada",
        "org": "unfoldingWord",
        "message": "hello",
        "message_type": "text",
    }


@responses.activate
def test_audio_is_passed_on_as_it_came():
    responses.post(ENGINE_URL, json=ANSWER)
    audio = {"message": "", "message_type": "audio", "audio_base64": "QUJD", "audio_format": "audio/ogg"}

    assert say(client(), json.dumps(audio).encode()).status_code == 200

    assert json.loads(responses.calls[0].request.body).items() >= audio.items()


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"{", 400, "invalid_request"),
        (b'{"message": " "}', 400, "invalid_request"),
        (b'{"message": "\\ud83d"}', 400, "invalid_request"),
        (b'{"message": "", "message_type": "audio"}', 400, "invalid_request"),
        (b'{"message": "' + b"x" * 5000 + b'"}', 413, "too_large"),
    ],
)
@responses.activate
def test_a_bad_body_is_refused_and_the_engine_not_asked(body, status, expected):
    assert code(say(client(MAX_BODY_BYTES="4096"), body)) == (status, expected)
    assert not responses.calls


@responses.activate
def test_messages_are_counted_here_too():
    responses.post(ENGINE_URL, json=ANSWER)
    browser = client(MESSAGES_PER_MINUTE="2")

    answers = [knock(browser, "chat") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"]


def test_an_answer_as_large_as_an_event_may_be_is_no_error():
    large = reply(json.dumps(ANSWER | {"voice_audio_base64": "A" * 3 * 2**20}).encode())

    with WireServer([large]) as engine:
        assert knock(client(engine.url), "chat").status_code == 200
        assert code(knock(client(engine.url, MAX_EVENT_BYTES="1048576"), "chat")) == (502, "upstream_error")


def test_one_connection_serves_one_answer_after_the_other():
    with WireServer([reply(json.dumps(ANSWER).encode())]) as engine:
        browser = client(engine.url)
        assert [knock(browser, "chat").status_code for _ in range(3)] == [200] * 3

        assert (len(engine.requests), engine.open_connections) == (3, 1)
