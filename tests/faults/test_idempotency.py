"""The same message sent again, by a browser that never heard whether it had arrived: one turn."""

import pytest

from tests.adopted import over_adopted, over_all
from tests.broker_says import COMPLETED
from tests.live import Browser, eventually, in_parallel, status_of, take
from tests.wire_server import LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = pytest.mark.live

ROOM = {"MAX_STREAMS_PER_USER": "60", "MESSAGES_PER_MINUTE": "1000", "QUEUE_DEPTH_PER_USER": "100"}


def answer(_request):
    yield stream_head()
    for number in range(10):
        yield chunk(f'data: {{"type":"progress","text":"{number} "}}\n\n'.encode())
        yield 0.02
    yield COMPLETED + LAST_CHUNK


def say(browser: Browser, client_message_id: str, message: str = "hello", **headers: str):
    content = {"message": message, "client_message_id": client_message_id}
    return browser.request("POST", "/api/chat/stream", content, **headers)


@over_all
@pytest.mark.parametrize("way", ["in the body", "in the header"])
def test_fifty_of_the_same_at_once_make_one_turn_and_fifty_equal_streams(share, kind, user, port, way):
    with WireServer(answer, port=port) as engine:
        browser = Browser(share(kind, ENGINE_BASE_URL=engine.url, ENGINE_API_KEY="key", **ROOM), user)

        def send(_number: int) -> tuple[str, list[str]]:
            reply = say(browser, "once") if way == "in the body" else browser.say("hello", Idempotency_Key="once")
            return reply.message_id, take(reply)

        sent = in_parallel(50, send)

        assert all(one == sent[0] for one in sent)
        assert len(sent[0][1]) == 13
        assert len(engine.requests) == 1


@over_adopted
def test_the_same_again_is_the_same_answer_again(share, kind, user):
    browser = Browser(share(kind), user)
    first = say(browser, "once")
    frames = take(first)

    again = say(browser, "once")

    assert again.message_id == first.message_id
    assert take(again) == frames


@over_adopted
def test_another_message_under_the_same_id_is_a_conflict(share, kind, user):
    browser = Browser(share(kind), user)
    take(say(browser, "once"))

    refused = say(browser, "once", "something else")

    assert (refused.status, refused.json()["code"]) == (422, "idempotency_conflict")
    assert browser.active() == []


@over_adopted
def test_the_header_wins_over_the_body(share, kind, user):
    browser = Browser(share(kind), user)
    first = say(browser, "a", Idempotency_Key="key")
    same, other = say(browser, "b", Idempotency_Key="key"), say(browser, "a", Idempotency_Key="other key")

    assert same.message_id == first.message_id != other.message_id
    for reply in (first, same, other):
        take(reply)


@over_adopted
def test_ids_of_different_users_are_different_ids(share, kind, user):
    server = share(kind)
    adas, bobs = say(Browser(server, user), "once"), say(Browser(server, f"not {user}"), "once", "something else")

    assert adas.message_id != bobs.message_id
    assert len(take(adas)) == 4
    assert len(take(bobs)) == 5


@over_adopted
def test_the_same_again_when_its_answer_is_gone_says_so(start, kind):
    browser = Browser(start(kind, RETENTION_SECONDS="0.3", MESSAGES_PER_MINUTE="1000"))
    reply = say(browser, "once")
    take(reply)
    assert eventually(lambda: status_of(browser.follow(reply.message_id)) == 410)

    again = say(browser, "once")

    assert (again.status, again.headers["Location"]) == (410, f"/api/chat/stream/{reply.message_id}")
    assert again.json()["code"] == "expired"
