"""All routes with the bundled engine, on real servers: replies through the broker are in its history and have audio."""

import io
import socket
import wave
from functools import partial
from urllib.parse import quote

import pytest

from tests.api.engine_requests import UNREACHABLE
from tests.live import Browser, eventually, head, status_of

pytestmark = pytest.mark.live


@pytest.fixture
def start(start, tmp_path):
    """Servers with an empty database."""
    return partial(start, DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")


AUDIO = {"message": "one two three", "message_type": "audio", "audio_base64": "QUJD", "audio_format": "ogg"}


@pytest.mark.parametrize("user", ["ada", "a/../../x?y#z@x.org", "/b//c/"])
def test_chat_history_preferences_and_audio_work_together(start, kind, user):
    browser = Browser(start(kind), user)

    assert browser.request("PUT", "/api/preferences", {"response_language": "de"}).json() == {"response_language": "de"}
    with browser.request("POST", "/api/chat/stream", AUDIO) as reply:
        *_, complete = reply.events()
    once = browser.request("POST", "/api/chat", {"message": "once"}).json()
    newest, spoken = browser.request("GET", "/api/chat/history?order=newest").json()["entries"]
    sound = browser.request("GET", f"/api/audio?url={quote(spoken['voice_audio_url'], safe='')}")
    length, body = sound.headers["Content-Length"], sound.read()

    assert complete["response"]["response_language"] == once["response_language"] == "de"
    assert (newest["user_message"], newest["assistant_response"]) == ("once", "once")
    assert spoken["voice_audio_url"] == complete["response"]["voice_audio_url"]
    assert int(length) == len(body)
    with wave.open(io.BytesIO(body)) as opened:
        assert opened.getnframes() / opened.getframerate() == pytest.approx(0.54)


def test_audio_is_served_in_ranges(start, kind):
    browser = Browser(start(kind))
    url = browser.request("POST", "/api/chat", AUDIO).json()["voice_audio_url"]
    path = f"/api/audio?url={quote(url, safe='')}"

    with browser.request("GET", path) as reply:
        whole, etag = reply.read(), reply.headers["ETag"]
    with browser.request("GET", path, Range="bytes=100-199", If_Range=etag) as reply:
        part = reply.status, reply.headers["Content-Range"], reply.read()

    assert part == (206, f"bytes 100-199/{len(whole)}", whole[100:200])
    assert status_of(browser.request("GET", path, If_None_Match=etag)) == 304
    assert status_of(browser.request("GET", path, Range=f"bytes={len(whole)}-")) == 416


def test_a_disconnect_releases_the_users_slot(start, kind):
    server = start(kind, MAX_STREAMS_PER_USER="1")
    body = b'{"message": "/silence 3600"}'
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(head("POST", "/api/chat", body=body) + body)
    assert eventually(lambda: [line.get("status") for line in server.log_lines].count(499) == 1, 20)

    assert status_of(Browser(server).request("POST", "/api/chat", {"message": "x"})) == 200


def test_only_streams_need_the_broker(start, kind):
    browser = Browser(start(kind, BROKER_BASE_URL=UNREACHABLE, BROKER_API_KEY="k" * 32))

    assert status_of(browser.say("hello")) == 503
    assert browser.request("POST", "/api/chat", {"message": "hello"}).json()["responses"] == ["hello"]
    assert browser.request("GET", "/api/chat/history").json()["total_count"] == 1
    assert status_of(browser.request("PUT", "/api/preferences", {"response_language": "de"})) == 200


def test_users_have_separate_history_and_audio(start):
    server = start()
    with Browser(server, "ada").request("POST", "/api/chat", AUDIO) as reply:
        url = reply.json()["voice_audio_url"]

    assert Browser(server, "eve").request("GET", "/api/chat/history").json()["entries"] == []
    assert status_of(Browser(server, "eve").request("GET", f"/api/audio?url={quote(url, safe='')}")) == 404
