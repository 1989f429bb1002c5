import io
import wave
from urllib.parse import quote
from uuid import UUID

import pytest

from bff.config.settings import Settings
from bff.engine.app import create_engine
from bff.engine.voice import MAX_NOTES, NOTE_SECONDS, RATE, speak
from bff.upstream.engine_client import HISTORY_MAX_BYTES

KEY = "k" * 64
BEARER = {"Authorization": f"Bearer {KEY}"}
USER = "/api/v1/orgs/default/users/ann"
REQUEST = {"client_id": "web", "user_id": "ann", "org": "default", "message": "hello", "message_type": "text"}


@pytest.fixture
def new_client(tmp_path):
    """`new_client()`: a client of a new engine; all engines share one database."""
    settings = Settings(echo_word_seconds=0, database_url=f"sqlite:///{tmp_path}/chat.db", app_env="development")
    return lambda: create_engine(settings, KEY).test_client()


@pytest.fixture
def client(new_client):
    return new_client()


def send(client, message: str = "hello", path: str = "/api/v1/chat", **fields: str):
    with client.post(path, headers=BEARER, json=REQUEST | {"message": message, **fields}) as response:
        return response.get_data(as_text=True) if path.endswith("stream") else response.get_json()


def get(client, path: str, **page):
    return client.get(path, headers=BEARER, query_string=page)


def entries(client, user: str = USER, **page) -> list[dict]:
    return get(client, f"{user}/history", **page).get_json()["entries"]


@pytest.mark.parametrize("path", ["/api/v1/chat", "/api/v1/chat/stream"])
def test_successful_turns_are_in_the_history(client, path):
    for message in ("first", "second", "/error"):
        send(client, message, path)

    history = get(client, f"{USER}/history").get_json()

    assert [(entry["user_message"], entry["assistant_response"]) for entry in history.pop("entries")] == [
        ("first", "first"),
        ("second", "second"),
    ]
    assert history == {"user_id": "ann", "total_count": 2, "limit": 50, "offset": 0}


def test_history_is_paged_oldest_first(client):
    for number in range(60):
        send(client, str(number))

    assert [entry["user_message"] for entry in entries(client, limit=2, offset=57)] == ["57", "58"]
    assert len(entries(client)) == len(entries(client, limit=99)) == 50
    assert entries(client, offset=60) == []


def test_each_user_has_a_history_of_its_own(client):
    send(client, "mine")

    assert get(client, "/api/v1/orgs/default/users/bob/history").status_code == 404
    assert get(client, "/api/v1/orgs/other/users/ann/history").status_code == 404


@pytest.mark.parametrize("user", ["a/../../x?y#z@x.org", "/a//b/", "x/history", "a%2fb", "é"])
def test_a_user_id_may_contain_any_characters(client, user):
    send(client, "hello", user_id=user)
    path = f"/api/v1/orgs/default/users/{quote(user, safe='')}"

    assert [entry["user_message"] for entry in entries(client, path)] == ["hello"]
    assert client.put(f"{path}/preferences", headers=BEARER, json={"response_language": "de"}).status_code == 200
    assert get(client, f"{path}/preferences").get_json() == {"response_language": "de"}


def test_replies_carry_the_preferred_language(client):
    assert get(client, f"{USER}/preferences").status_code == 404

    response = client.put(f"{USER}/preferences", headers=BEARER, json={"response_language": "de"})

    assert response.get_json() == get(client, f"{USER}/preferences").get_json() == {"response_language": "de"}
    assert send(client)["response_language"] == "de"
    assert '"response_language":"de"' in send(client, path="/api/v1/chat/stream")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"response_language": null}', b'{"response_language": "EN"}', b'{"response_language": 1}']
)
def test_an_invalid_language_is_refused(client, body):
    response = client.put(f"{USER}/preferences", headers=BEARER, data=body, content_type="application/json")

    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_request")


def test_a_reply_to_an_audio_message_has_a_playable_wav(client):
    reply = send(client, "one two three", message_type="audio")

    path = reply["voice_audio_url"].removeprefix("http://localhost")
    audio = get(client, path)

    assert (audio.status_code, audio.headers["Content-Type"]) == (200, "audio/wav")
    assert entries(client)[0]["voice_audio_url"] == reply["voice_audio_url"]
    with wave.open(io.BytesIO(audio.data)) as wav:
        assert wav.getnframes() / wav.getframerate() == 3 * NOTE_SECONDS


def test_an_audio_message_without_text_gets_a_reply(client):
    reply = send(client, " ", message_type="audio")

    assert reply["responses"] == [entries(client)[0]["user_message"]] == ["(a voice message)"]


def test_only_replies_to_audio_messages_have_audio_and_only_for_their_user(client):
    reply = send(client)
    path = send(client, message_type="audio")["voice_audio_url"].removeprefix("http://localhost")

    assert "voice_audio_url" not in reply
    assert "voice_audio_url" not in entries(client)[0]
    assert get(client, path.replace("/ann/", "/bob/")).status_code == 404
    assert get(client, path.replace(".wav", "0.wav")).status_code == 404


@pytest.mark.parametrize(
    "path", [f"{USER}/history", f"{USER}/preferences", f"/api/v1/audio/replies/default/ann/{UUID(int=0)}.wav"]
)
def test_a_request_without_the_key_is_refused(client, path):
    assert client.get(path).status_code == 401


def test_a_page_of_long_texts_is_truncated_to_fit_the_clients_limit(client):
    for _ in range(3):
        send(client, "/big 400")

    page = get(client, f"{USER}/history")

    assert len(page.data) < HISTORY_MAX_BYTES
    for entry in page.get_json()["entries"]:
        assert (entry["user_message"], len(entry["assistant_response"])) == ("/big 400", 100_000)
        assert entry["assistant_response"].endswith("…")


def test_history_survives_a_restart(new_client):
    send(new_client(), "before")

    restarted = new_client()
    send(restarted, "after")

    assert [entry["user_message"] for entry in entries(restarted)] == ["before", "after"]


def test_a_message_that_is_run_again_stays_one_turn(client):
    for _ in range(3):
        send(client, "once", "/api/v1/chat/stream", message_id="m-1")
        send(client, "twice", "/api/v1/chat/stream", message_id="m-2")

    assert [entry["user_message"] for entry in entries(client)] == ["once", "twice"]


def test_the_audio_of_a_long_reply_is_cut():
    with wave.open(io.BytesIO(speak("word " * 10_000))) as wav:
        assert wav.getnframes() == MAX_NOTES * int(NOTE_SECONDS * RATE)
