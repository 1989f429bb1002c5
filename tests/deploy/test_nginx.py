"""deploy/nginx.conf, behind a real nginx: nothing is held up, cut, refused or asked twice."""

from itertools import islice, takewhile

import pytest

from tests.deploy.nginx_server import Nginx, nginx_or_skip
from tests.live import Browser, content_of, eventually, id_of, status_of

pytestmark = pytest.mark.live


@pytest.fixture
def server(start):
    nginx_or_skip()
    return start("gunicorn", TRUSTED_PROXY_HOPS="1", HEARTBEAT_SECONDS="0.2")


@pytest.fixture
def browser(server, tmp_path):
    nginx = Nginx(tmp_path, server.port)
    yield Browser(nginx.url)
    nginx.stop()


def test_events_come_while_the_answer_is_still_being_said(server, browser):
    reply = browser.say("/slow 3600 one two")

    types = (content_of(frame)["type"] for frame in reply.frames())
    first = list(takewhile(lambda kind: kind != "progress", types))

    assert [kind for kind in first if kind != "keepalive"] == ["status", "status"]
    assert list(islice(types, 2)) == ["keepalive", "keepalive"]
    assert server.ended == []
    browser.stop(reply.message_id).read()
    reply.leave()


def test_a_browser_that_leaves_is_missed_behind_it(server, browser):
    reply = browser.say("/slow 3600 one two")
    list(islice(reply.frames(), 3))

    reply.leave()

    assert eventually(lambda: server.ended == ["aborted"], 20)
    browser.stop(reply.message_id).read()


def test_an_answer_is_resumed_through_it(browser):
    reply = browser.say("one two three")
    seen = id_of(next(frame for frame in reply.frames() if content_of(frame)["type"] == "progress"))
    reply.leave()

    with browser.follow(reply.message_id, seen) as resumed:
        rest = [event["type"] for event in resumed.events()]

    assert rest[-1] == "complete"
    assert "status" not in rest


def test_a_spoken_message_of_some_megabytes_gets_through(browser):
    spoken = {"message": "", "message_type": "audio", "audio_format": "ogg", "audio_base64": "QUJD" * 2**20}

    reply = browser.request("POST", "/api/chat", spoken)

    assert (reply.status, bool(reply.json()["responses"])) == (200, True)


def test_a_refusal_is_ours_and_not_its_own(browser):
    reply = browser.request("GET", "/api/nothing", X_Request_ID="a-name-of-the-browsers")

    assert (reply.status, reply.json()["code"]) == (404, "not_found")
    assert reply.headers["X-Request-ID"] == "a-name-of-the-browsers"


def test_the_page_behind_it_may_ask(browser):
    assert status_of(browser.request("POST", "/api/ticket", Origin=browser.url)) == 201
