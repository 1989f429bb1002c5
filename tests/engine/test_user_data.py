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
USER = "/api/v1/orgs/unfoldingWord/users/ann"
ASKED = {"client_id": "web", "user_id": "ann", "org": "unfoldingWord", "message": "hello", "message_type": "text"}


@pytest.fixture
def make(tmp_path):
    """`make()`: a client of an engine of its own; all share one database."""
    settings = Settings(echo_word_seconds=0, database_url=f"sqlite:///{tmp_path}/chat.db", app_env="development")
    return lambda: create_engine(settings, KEY).test_client()


@pytest.fixture
def client(make):
    return make()


def ask(client, message: str = "hello", path: str = "/api/v1/chat", **fields: str):
    with client.post(path, headers=BEARER, json=ASKED | {"message": message, **fields}) as answer:
        return answer.get_data(as_text=True) if path.endswith("stream") else answer.get_json()


def get(client, path: str, **page):
    return client.get(path, headers=BEARER, query_string=page)


def entries(client, user: str = USER, **page) -> list[dict]:
    return get(client, f"{user}/history", **page).get_json()["entries"]


@pytest.mark.parametrize("path", ["/api/v1/chat", "/api/v1/chat/stream"])
def test_what_was_answered_is_in_the_history(client, path):
    for message in ("first", "second", "/error"):
        ask(client, message, path)

    history = get(client, f"{USER}/history").get_json()

    assert [(entry["user_message"], entry["assistant_response"]) for entry in history.pop("entries")] == [
        ("first", "first"),
        ("second", "second"),
    ]
    assert history == {"user_id": "ann", "total_count": 2, "limit": 50, "offset": 0}


def test_history_comes_in_pages_oldest_first(client):
    for number in range(60):
        ask(client, str(number))

    assert [entry["user_message"] for entry in entries(client, limit=2, offset=57)] == ["57", "58"]
    assert len(entries(client)) == len(entries(client, limit=99)) == 50
    assert entries(client, offset=60) == []


def test_each_user_has_a_history_of_its_own(client):
    ask(client, "mine")

    assert get(client, "/api/v1/orgs/unfoldingWord/users/bob/history").status_code == 404
    assert get(client, "/api/v1/orgs/other/users/ann/history").status_code == 404


@pytest.mark.parametrize("user", ["a/../../x?y#z@x.org", "/a//b/", "x/history", "a%2fb", "é"])
def test_a_user_id_may_hold_anything(client, user):
    ask(client, "hello", user_id=user)
    path = f"/api/v1/orgs/unfoldingWord/users/{quote(user, safe='')}"

    assert [entry["user_message"] for entry in entries(client, path)] == ["hello"]
    assert client.put(f"{path}/preferences", headers=BEARER, json={"response_language": "de"}).status_code == 200
    assert get(client, f"{path}/preferences").get_json() == {"response_language": "de"}


def test_a_language_that_was_chosen_is_the_one_that_is_answered_in(client):
    assert get(client, f"{USER}/preferences").status_code == 404

    chosen = client.put(f"{USER}/preferences", headers=BEARER, json={"response_language": "de"})

    assert chosen.get_json() == get(client, f"{USER}/preferences").get_json() == {"response_language": "de"}
    assert ask(client)["response_language"] == "de"
    assert '"response_language":"de"' in ask(client, path="/api/v1/chat/stream")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"response_language": null}', b'{"response_language": "EN"}', b'{"response_language": 1}']
)
def test_what_is_no_language_is_refused(client, body):
    answer = client.put(f"{USER}/preferences", headers=BEARER, data=body, content_type="application/json")

    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_request")


def test_an_audio_message_is_answered_with_a_sound_that_can_be_heard(client):
    answer = ask(client, "one two three", message_type="audio")

    path = answer["voice_audio_url"].removeprefix("http://localhost")
    sound = get(client, path)

    assert (sound.status_code, sound.headers["Content-Type"]) == (200, "audio/wav")
    assert entries(client)[0]["voice_audio_url"] == answer["voice_audio_url"]
    with wave.open(io.BytesIO(sound.data)) as opened:
        assert opened.getnframes() / opened.getframerate() == 3 * NOTE_SECONDS


def test_a_voice_without_words_is_answered_too(client):
    answer = ask(client, " ", message_type="audio")

    assert answer["responses"] == [entries(client)[0]["user_message"]] == ["(a voice message)"]


def test_what_was_not_spoken_cannot_be_heard(client):
    answer = ask(client)
    path = ask(client, message_type="audio")["voice_audio_url"].removeprefix("http://localhost")

    assert "voice_audio_url" not in answer
    assert "voice_audio_url" not in entries(client)[0]
    assert get(client, path.replace("/ann/", "/bob/")).status_code == 404
    assert get(client, path.replace(".wav", "0.wav")).status_code == 404


@pytest.mark.parametrize(
    "path", [f"{USER}/history", f"{USER}/preferences", f"/api/v1/audio/replies/unfoldingWord/ann/{UUID(int=0)}.wav"]
)
def test_a_caller_must_show_the_key(client, path):
    assert client.get(path).status_code == 401


def test_a_page_of_long_texts_is_one_that_can_be_read(client):
    for _ in range(3):
        ask(client, "/big 400")

    page = get(client, f"{USER}/history")

    assert len(page.data) < HISTORY_MAX_BYTES
    for entry in page.get_json()["entries"]:
        assert (entry["user_message"], len(entry["assistant_response"])) == ("/big 400", 100_000)
        assert entry["assistant_response"].endswith("…")


def test_what_was_said_is_there_after_a_restart(make):
    ask(make(), "before")

    again = make()
    ask(again, "after")

    assert [entry["user_message"] for entry in entries(again)] == ["before", "after"]


def test_one_message_is_one_turn_however_often_it_is_answered(client):
    for _ in range(3):
        ask(client, "once", "/api/v1/chat/stream", message_id="m-1")
        ask(client, "twice", "/api/v1/chat/stream", message_id="m-2")

    assert [entry["user_message"] for entry in entries(client)] == ["once", "twice"]


def test_a_long_answer_makes_a_short_sound():
    with wave.open(io.BytesIO(speak("word " * 10_000))) as sound:
        assert sound.getnframes() == MAX_NOTES * int(NOTE_SECONDS * RATE)
