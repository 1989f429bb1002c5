"""Stop disconnects the engine at once, readers receive the text so far, and the user's queue continues."""

import json
from time import monotonic

import pytest

from tests.adopted import over_adopted, over_all
from tests.broker_responses import COMPLETED
from tests.live import Browser, Server, content_of, eventually, id_of, last_of, status_of, take
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = pytest.mark.live

MAX_RELEASE_SECONDS = 1.0
"""Seconds until the engine is disconnected, with a margin for a busy machine."""


def progress(text: str) -> bytes:
    return chunk(f'data: {{"type":"progress","text":"{text}"}}\n\n'.encode())


SILENT = [HANG]
PARTIAL = [stream_head(), progress("so "), progress("far "), HANG]
COMPLETE_REPLY = [stream_head(), COMPLETED, LAST_CHUNK]


def start_with(start, kind: str, engine: WireServer, **settings: str) -> Server:
    return start(kind, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="key", **settings)


@pytest.fixture
def browser_of(share, kind, user):
    """`browser_of(engine)` returns a browser of a user of this test, on a shared server."""
    return lambda engine: Browser(start_with(share, kind, engine), user)


def stopped_with(*responses: str) -> dict:
    response = {"responses": list(responses), "response_language": None, "voice_audio_base64": None}
    return {"type": "stopped", "response": response}


@pytest.mark.parametrize("steps", [SILENT, PARTIAL], ids=["before its headers", "in the middle"])
def test_a_stop_disconnects_the_engine_at_once_and_the_next_message_runs(browser_of, port, steps):
    with WireServer(steps, COMPLETE_REPLY, port=port) as engine:
        browser = browser_of(engine)
        reply = browser.say("hello")
        frames = take(browser.follow(reply.message_id), 2 if steps is SILENT else 4)
        waiting = browser.say("next")
        assert engine.wait_for(lambda: len(engine.requests) == 1)

        started = monotonic()
        assert status_of(browser.stop(reply.message_id)) == 202
        assert engine.wait_for(lambda: engine.hung_up == 1)
        assert monotonic() - started < MAX_RELEASE_SECONDS

        assert last_of(reply) == (stopped_with() if steps is SILENT else stopped_with("so far "))
        assert last_of(browser.follow(reply.message_id, id_of(frames[-1])))["type"] == "stopped", "later readers receive it too"
        assert last_of(waiting)["type"] == "complete"
        assert len(engine.requests) == 2


def test_a_stopped_message_in_the_queue_never_runs(browser_of, port):
    with WireServer(PARTIAL, COMPLETE_REPLY, port=port) as engine:
        browser = browser_of(engine)
        running, waiting, last = browser.say("running"), browser.say("waiting"), browser.say("last")

        assert status_of(browser.stop(waiting.message_id)) == 202

        assert last_of(waiting) == stopped_with()
        assert [message["message_id"] for message in browser.active()] == [running.message_id, last.message_id]
        browser.stop(running.message_id).close()
        assert last_of(running) == stopped_with("so far ")
        frames = take(last)
        assert content_of(frames[-1])["type"] == "complete"
        positions = [content["position"] for content in map(content_of, frames) if "position" in content]
        assert positions == [2, 1], "it moved up"
        assert [json.loads(request.body)["message"] for request in engine.requests] == ["running", "last"]


@over_adopted
def test_a_stop_after_the_end_changes_nothing(share, kind, user):
    browser = Browser(share(kind), user)
    reply = browser.say("one two")
    frames = take(reply)

    for _ in range(2):
        assert status_of(browser.stop(reply.message_id)) == 202

    assert take(browser.follow(reply.message_id)) == frames


@over_all
def test_a_stop_is_idempotent(browser_of, port):
    with WireServer(PARTIAL, port=port) as engine:
        browser = browser_of(engine)
        reply = browser.say("hello")
        take(browser.follow(reply.message_id), 4)

        assert [status_of(browser.stop(reply.message_id)) for _ in range(3)] == [202] * 3

        kinds = [content_of(frame)["type"] for frame in take(reply)]
        assert kinds == ["status", "status", "progress", "progress", "stopped"]


def test_a_reply_without_readers_can_be_stopped(browser_of, port):
    with WireServer(PARTIAL, port=port) as engine:
        browser = browser_of(engine)
        reply = browser.say("hello")
        take(reply, 4)

        browser.stop(reply.message_id).close()

        assert engine.wait_for(lambda: engine.hung_up == 1)
        assert last_of(browser.follow(reply.message_id)) == stopped_with("so far ")


@over_adopted
def test_only_ones_own_replies_can_be_stopped(share, kind, user):
    server = share(kind)
    browser = Browser(server, user)
    reply = browser.say("/slow 0.5 one two three")

    for response in (Browser(server, "eve").stop(reply.message_id), browser.stop("unknown"), browser.stop("%2e%2e")):
        assert (response.status, response.json()["code"]) == (404, "not_found")

    assert last_of(reply)["type"] == "complete"


def test_on_busy_interrupt_stops_the_running_reply(start, kind):
    with WireServer(PARTIAL, COMPLETE_REPLY) as engine:
        browser = Browser(start_with(start, kind, engine, ON_BUSY="interrupt"))
        first = browser.say("first")
        take(browser.follow(first.message_id), 4)

        second = browser.say("second")

        assert last_of(first) == stopped_with("so far ")
        assert last_of(second)["type"] == "complete"


# Replies without readers


@over_adopted
def test_with_on_disconnect_continue_a_reply_finishes_without_readers(start, kind):
    browser = Browser(start(kind, ON_DISCONNECT="continue"))
    reply = browser.say("/slow 0.5 one two three")

    take(reply, 3)

    assert eventually(lambda: browser.active() == [])
    assert last_of(browser.follow(reply.message_id))["type"] == "complete"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gunicorn", "adopted"], indirect=True)
@pytest.mark.timeout(40)
def test_with_on_disconnect_cancel_a_reply_without_readers_is_stopped(start, kind):
    with WireServer(PARTIAL) as engine:
        server = start_with(start, kind, engine, ON_DISCONNECT="cancel")
        read, unread = Browser(server, "ada"), Browser(server, "bob")
        watched, abandoned = read.say("hello"), unread.say("hello")
        tab = unread.follow(abandoned.message_id)

        take(abandoned, 4)
        started = monotonic()
        take(tab, 4)

        assert eventually(lambda: unread.active() == [], 10)
        assert 4.5 < monotonic() - started < 8
        assert kind == "adopted" or engine.wait_for(lambda: engine.hung_up == 1)
        assert last_of(unread.follow(abandoned.message_id)) == stopped_with("so far ")
        assert read.active() == [{"message_id": watched.message_id, "state": "running", "position": 0}]
        watched.leave()
