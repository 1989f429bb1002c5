"""Limits: exceeding one gets an error at once, and every slot is released."""

import threading
from itertools import cycle
from time import monotonic

import pytest

from tests.adopted import over_adopted, over_single
from tests.broker_responses import COMPLETED
from tests.live import Browser, content_of, eventually, in_parallel, last_of, status_of, take
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = pytest.mark.live

PROGRESS = chunk(b'data: {"type":"progress","text":"so far"}\n\n')


def refusal(reply) -> tuple[int, str]:
    """Returns status and code, and checks `Retry-After`."""
    status, code, seconds = reply.status, reply.json()["code"], reply.headers["Retry-After"]
    assert 1 <= int(seconds) <= 60
    return status, code


@over_single
def test_streams_are_limited_per_user_and_in_total(start, single):
    server = start(single, MAX_STREAMS_PER_USER="2", MAX_STREAMS="3")
    ada, bob, eve = Browser(server, "ada"), Browser(server, "bob"), Browser(server, "eve")
    open_replies = [ada.say("/slow 20 one two"), ada.say("/slow 20 one two")]

    assert refusal(ada.say("one too many")) == (429, "too_many_requests")
    assert refusal(ada.follow(open_replies[0].message_id)) == (429, "too_many_requests")
    assert len(ada.active()) == 2, "refused messages are not enqueued"

    open_replies.append(bob.say("/slow 20 one two"))
    started = monotonic()
    assert refusal(bob.say("one too many")) == (503, "server_full")
    assert refusal(eve.say("one too many")) == (503, "server_full")
    assert refusal(eve.follow("any")) == (503, "server_full")
    assert monotonic() - started < 10, "not when a slot is free again"
    with eve.follow("any", Accept="text/event-stream") as reply:
        body = reply.read().decode()
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert 500 <= int(body.removeprefix("retry: ").removesuffix("\n\n")) <= 3000

    for reply in open_replies:
        reply.leave()
    assert eventually(lambda: status_of(eve.say("now there is room")) == 200)


@over_adopted
def test_an_event_source_over_the_users_limit_gets_retry(start, kind):
    browser = Browser(start(kind, MAX_STREAMS_PER_USER="1"))
    open_reply = browser.say("/slow 20 one two")

    with browser.follow(open_reply.message_id, Accept="text/event-stream") as reply:
        assert (reply.status, reply.read()[:7]) == (200, b"retry: ")

    open_reply.leave()


@over_adopted
def test_queued_messages_are_limited_per_user(start, kind):
    server = start(kind, QUEUE_DEPTH_PER_USER="2")
    ada = Browser(server, "ada")
    seconds = 4 if kind == "adopted" else 20  # An adopted reply is read to its end, also once it was stopped.
    running = ada.say(f"/slow {seconds} one two")
    take(ada.follow(running.message_id), 2)
    waiting = [ada.say("first"), ada.say("second")]

    assert refusal(ada.say("one too many")) == (429, "too_many_requests")
    assert last_of(Browser(server, "bob").say("hello"))["type"] == "complete"

    ada.stop(running.message_id).close()
    for reply in [running, *waiting]:
        take(reply)
    assert last_of(ada.say("now there is room"))["type"] == "complete"


def test_messages_per_minute_are_limited_per_user(start, kind):
    server = start(kind, MESSAGES_PER_MINUTE="3")
    ada = Browser(server, "ada")
    for number in range(3):
        take(ada.say(f"message {number}"))

    refused = ada.say("one too many")

    assert refusal(refused) == (429, "too_many_requests")
    assert 50 <= int(refused.headers["Retry-After"]) <= 60
    assert status_of(Browser(server, "bob").say("hello")) == 200


@pytest.mark.parametrize("steps", [[HANG], [stream_head(), PROGRESS, HANG]], ids=["no response", "started"])
def test_a_reply_that_takes_too_long_is_ended_and_the_next_one_runs(start, kind, steps):
    with WireServer(steps, [stream_head(), COMPLETED, LAST_CHUNK]) as engine:
        browser = Browser(start(kind, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="key", ANSWER_MAX_SECONDS="0.5"))
        started = monotonic()
        reply, waiting = browser.say("slow"), browser.say("next")

        contents = [content_of(frame) for frame in take(reply)]

        assert 0.4 < monotonic() - started < 3
        assert (contents[-1]["type"], contents[-1]["code"]) == ("error", "answer_timeout")
        assert [content["type"] for content in contents[:-1]].count("progress") == len(steps) // 2
        assert engine.wait_for(lambda: engine.hung_up == 1), "the engine is disconnected"
        assert last_of(waiting)["type"] == "complete"


def test_more_users_than_slots_all_get_replies(start, kind):
    lock, running, peak = threading.Lock(), 0, 0

    def engine_reply(_request):
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        yield stream_head() + PROGRESS
        yield 0.05
        with lock:
            running -= 1
        yield COMPLETED + LAST_CHUNK

    with WireServer(engine_reply) as engine:
        server = start(kind, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="key", MAX_RUNNING="2")

        ends = in_parallel(20, lambda number: last_of(Browser(server, f"user-{number}").say("hello"))["type"])

        assert ends == ["complete"] * 20
        assert 2 <= peak <= (6 if kind == "fleet" else 2), "two per process"


@over_adopted
def test_a_reply_larger_than_its_log_ends_in_one_error(start, kind):
    browser = Browser(start(kind, LOG_MAX_BYTES="20000"))

    kinds = [content_of(frame)["type"] for frame in take(browser.say("/big 300"))]
    assert (kinds[-1], kinds.count("error"), kinds.count("complete")) == ("error", 1, 0)

    many = [content_of(frame)["type"] for frame in take(browser.say("many words " * 200))]
    assert (many[-1], many.count("error"), many.count("complete")) == ("error", 1, 0)
    assert many.count("progress") < 100

    assert last_of(browser.say("/big 4"))["type"] == "complete"


def test_the_oldest_replies_are_evicted_first(start, kind):
    browser = Browser(start(kind, LOG_MAX_BYTES="30000"))
    ids = []
    for _ in range(4):
        reply = browser.say("/big 4")
        ids.append(reply.message_id)
        take(reply)

    statuses = [status_of(browser.follow(message_id)) for message_id in ids]

    assert (statuses[0], statuses[-1]) == (410, 200)
    assert statuses == sorted(statuses, reverse=True)


@over_adopted
def test_every_slot_is_released(start, kind):
    settings = {"MAX_STREAMS": "6", "MAX_STREAMS_PER_USER": "3", "MESSAGES_PER_MINUTE": "1000", "ON_BUSY": "reject"}
    server = start(kind, **settings)
    frame_counts = cycle([0, 1, 2, None])

    def open_and_close(number: int) -> None:
        browser = Browser(server, f"user-{number}")
        for _ in range(25):
            reply = browser.say("one two three")
            if reply.status == 200:
                take(reply, next(frame_counts))
            else:
                reply.close()
            browser.follow("unknown").close()
            browser.request("HEAD", "/api/chat/stream/unknown").close()

    in_parallel(4, open_and_close)

    def fill() -> bool:
        users = [Browser(server, f"new-{number}") for number in range(6)]
        replies = [user.say("/slow 1 one two") for user in users]
        statuses = [reply.status for reply in replies]
        for reply in replies:
            reply.leave()
        return statuses == [200] * 6

    assert eventually(fill)


@over_single
def test_a_slot_can_be_reused_at_once(start, single):
    browser = Browser(start(single, MAX_STREAMS="1", MESSAGES_PER_MINUTE="1000"))

    ends = [content_of(list(browser.say("one two").frames())[-1])["type"] for _ in range(30)]

    assert ends == ["complete"] * 30
