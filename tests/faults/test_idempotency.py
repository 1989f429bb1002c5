"""A message sent again, by a browser without a response to the first request, makes one turn."""

import pytest

from tests.adopted import over_adopted, over_all
from tests.broker_responses import COMPLETED
from tests.live import Browser, eventually, in_parallel, status_of, take
from tests.wire_server import LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = pytest.mark.live

HIGH_LIMITS = {"MAX_STREAMS_PER_USER": "60", "MESSAGES_PER_MINUTE": "1000", "QUEUE_DEPTH_PER_USER": "100"}


def engine_reply(_request):
    yield stream_head()
    for number in range(10):
        yield chunk(f'data: {{"type":"progress","text":"{number} "}}\n\n'.encode())
        yield 0.02
    yield COMPLETED + LAST_CHUNK


def send(browser: Browser, client_message_id: str, message: str = "hello", **headers: str):
    content = {"message": message, "client_message_id": client_message_id}
    return browser.request("POST", "/api/chat/stream", content, **headers)


@over_all
@pytest.mark.parametrize("location", ["in the body", "in the header"])
def test_fifty_equal_requests_make_one_turn_and_equal_streams(share, kind, user, port, location):
    with WireServer(engine_reply, port=port) as engine:
        browser = Browser(share(kind, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="key", **HIGH_LIMITS), user)

        def send_once(_number: int) -> tuple[str, list[str]]:
            reply = send(browser, "once") if location == "in the body" else browser.say("hello", Idempotency_Key="once")
            return reply.message_id, take(reply)

        results = in_parallel(50, send_once)

        assert all(reply == results[0] for reply in results)
        assert len(results[0][1]) == 13
        assert len(engine.requests) == 1


@over_adopted
def test_a_repeated_message_gets_the_same_reply(share, kind, user):
    browser = Browser(share(kind), user)
    first = send(browser, "once")
    frames = take(first)

    repeated = send(browser, "once")

    assert repeated.message_id == first.message_id
    assert take(repeated) == frames


@over_adopted
def test_another_message_with_the_same_key_is_a_conflict(share, kind, user):
    browser = Browser(share(kind), user)
    take(send(browser, "once"))

    refused = send(browser, "once", "something else")

    assert (refused.status, refused.json()["code"]) == (422, "idempotency_conflict")
    assert browser.active() == []


@over_adopted
def test_the_header_takes_precedence_over_the_body(share, kind, user):
    browser = Browser(share(kind), user)
    first = send(browser, "a", Idempotency_Key="key")
    same, other = send(browser, "b", Idempotency_Key="key"), send(browser, "a", Idempotency_Key="other key")

    assert same.message_id == first.message_id != other.message_id
    for reply in (first, same, other):
        take(reply)


@over_adopted
def test_keys_of_different_users_are_independent(share, kind, user):
    server = share(kind)
    adas, bobs = send(Browser(server, user), "once"), send(Browser(server, f"not {user}"), "once", "something else")

    assert adas.message_id != bobs.message_id
    assert len(take(adas)) == 4
    assert len(take(bobs)) == 5


@over_adopted
def test_a_repeated_message_with_an_expired_reply_gets_410(start, kind):
    browser = Browser(start(kind, RETENTION_SECONDS="0.3", MESSAGES_PER_MINUTE="1000"))
    reply = send(browser, "once")
    take(reply)
    assert eventually(lambda: status_of(browser.follow(reply.message_id)) == 410)

    repeated = send(browser, "once")

    assert (repeated.status, repeated.headers["Location"]) == (410, f"/api/chat/stream/{reply.message_id}")
    assert repeated.json()["code"] == "expired"
