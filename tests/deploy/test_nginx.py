"""deploy/nginx.conf in a real nginx: nothing is buffered, cut off, refused or repeated."""

from itertools import islice, takewhile

import pytest

from tests.api.cli.conformance.test_ourselves import CREDENTIALS
from tests.api.cli.conformance.test_ourselves import run as conformance
from tests.deploy.nginx_server import Nginx, nginx_or_skip
from tests.live import Browser, content_of, eventually, id_of, status_of

pytestmark = pytest.mark.live


@pytest.fixture
def server(start):
    nginx_or_skip()
    return start("gunicorn", TRUSTED_PROXY_HOPS="1", HEARTBEAT_SECONDS="0.2", MESSAGES_PER_MINUTE="1000")


@pytest.fixture
def browser(server, tmp_path):
    nginx = Nginx(tmp_path, server.port)
    yield Browser(nginx.url)
    nginx.stop()


def test_events_pass_through_unbuffered(server, browser):
    reply = browser.say("/slow 3600 one two")

    types = (content_of(frame)["type"] for frame in reply.frames())
    first = list(takewhile(lambda event_type: event_type != "progress", types))

    assert [event_type for event_type in first if event_type != "keepalive"] == ["status", "status"]
    assert list(islice(types, 2)) == ["keepalive", "keepalive"]
    assert server.ended == []
    browser.stop(reply.message_id).read()
    reply.leave()


def test_a_disconnect_is_noticed_behind_nginx(server, browser):
    reply = browser.say("/slow 3600 one two")
    list(islice(reply.frames(), 3))

    reply.leave()

    assert eventually(lambda: server.ended == ["aborted"], 20)
    browser.stop(reply.message_id).read()


@pytest.mark.slow
def test_every_rule_of_the_protocol_is_kept_through_nginx(server, tmp_path):
    """Among others a body over nginx's own limit is refused in the shape of our errors."""
    nginx = Nginx(tmp_path, server.port)
    try:
        done = conformance(nginx.url, "--heartbeat", "0.3", *CREDENTIALS)
    finally:
        nginx.stop()

    assert done.returncode == 0, done.stdout
    assert "skip" not in done.stdout


def test_a_reply_is_resumed_through_nginx(browser):
    reply = browser.say("one two three")
    last_id = id_of(next(frame for frame in reply.frames() if content_of(frame)["type"] == "progress"))
    reply.leave()

    with browser.follow(reply.message_id, last_id) as resumed:
        rest = [event["type"] for event in resumed.events()]

    assert rest[-1] == "complete"
    assert "status" not in rest


def test_a_voice_message_of_some_megabytes_is_accepted(browser):
    message = {"message": "", "message_type": "audio", "audio_format": "ogg", "audio_base64": "QUJD" * 2**20}

    reply = browser.request("POST", "/api/chat", message)

    assert (reply.status, bool(reply.json()["responses"])) == (200, True)


def test_error_responses_come_from_the_app(browser):
    reply = browser.request("GET", "/api/nothing", X_Request_ID="id-of-the-browser")

    assert (reply.status, reply.json()["code"]) == (404, "not_found")
    assert reply.headers["X-Request-ID"] == "id-of-the-browser"


def test_the_pages_origin_is_accepted(browser):
    assert status_of(browser.request("POST", "/api/ticket", Origin=browser.url)) == 201
