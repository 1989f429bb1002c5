"""A resumed reply is the same as an uninterrupted one: under greenlets, threads, and with a separate broker."""

import random
from collections.abc import Iterator
from itertools import accumulate, chain, pairwise, repeat
from math import inf

import pytest

from tests.live import BROKER_KEY, Browser, Server, content_of, eventually, id_of, in_parallel, status_of, take, text_of

MESSAGE = " ".join(f"word-{number}" for number in range(57))
EVENT_COUNT = 60
"""Events of its reply: two statuses, 57 words, complete."""

pytestmark = pytest.mark.live


SERVERS = ["gunicorn", "flask", "gunicorn and a broker", "adopted", "adopted fleet"]
bundled_only = pytest.mark.parametrize("server", SERVERS[:3], indirect=True)
"""For what would take as long as the reply that was stopped: an adopted one is read to its end."""
in_a_fleet_too = pytest.mark.parametrize("server", SERVERS, indirect=True)


@pytest.fixture(scope="module", params=SERVERS[:4])
def server(request, share) -> Server:
    settings = {"MESSAGES_PER_MINUTE": "10000", "MAX_STREAMS_PER_USER": "50"}
    kind, _, broker_kind = request.param.partition(" and a ")
    if broker_kind:
        broker = share(broker_kind, BROKER_API_KEY=BROKER_KEY)
        settings |= {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY}
    return share(kind, **settings)


@pytest.fixture
def browser(server, request) -> Browser:
    """A browser of a different user in each test."""
    return Browser(server, request.node.name[:60])


def read_in_pieces(browser: Browser, lengths: Iterator[float]) -> tuple[str, list[str]]:
    """Reads a reply with one connection for each of `lengths`, the number of frames. Returns message id and frames."""
    reply = browser.say(MESSAGE)
    message_id, frames = reply.message_id, []
    for length in lengths:
        frames += take(reply, None if length == inf else int(length))
        reply = browser.follow(message_id, id_of(frames[-1]))
        if reply.status == 204:
            reply.close()
            break
    return message_id, frames


def assert_complete(browser: Browser, message_id: str, frames: list[str]) -> None:
    assert frames == take(browser.follow(message_id)), "as an uninterrupted reader receives it"
    assert len(frames) == EVENT_COUNT
    assert content_of(frames[-1])["response"]["responses"] == [MESSAGE]


# Interruptions


@pytest.mark.slow
def test_a_reply_interrupted_after_any_event_is_complete(server):
    def cut_after(number: int) -> None:
        browser = Browser(server, f"user-{number % 6}")
        for length in range(1 + number, EVENT_COUNT + 1, 6):
            assert_complete(browser, *read_in_pieces(browser, iter([length, inf, inf])))

    in_parallel(6, cut_after)


@in_a_fleet_too
def test_a_reply_interrupted_after_every_event_is_complete(browser):
    assert_complete(browser, *read_in_pieces(browser, repeat(1)))


@pytest.mark.slow
@in_a_fleet_too
def test_replies_interrupted_at_random_are_complete(server):
    def cut(number: int) -> int:
        rng, browser, cuts = random.Random(number), Browser(server, f"random-{number}"), 0
        while cuts < 50:
            lengths = [rng.choice([1, 2, 5, 12]) for _ in range(8)]
            assert_complete(browser, *read_in_pieces(browser, chain(lengths, repeat(inf))))
            cuts += len([end for end in accumulate(lengths) if end < EVENT_COUNT])
        return cuts

    assert sum(in_parallel(4, cut)) >= 200


@in_a_fleet_too
def test_a_reply_continues_without_readers(browser):
    reply = browser.say("/slow 0.5 one two three four five")
    first = take(reply, 3)

    assert eventually(lambda: browser.active() == [])

    rest = take(browser.follow(reply.message_id, id_of(first[-1])))
    assert first + rest == take(browser.follow(reply.message_id))
    assert "".join(content_of(frame).get("text", "") for frame in first + rest) == "one two three four five"


# Readers


@in_a_fleet_too
def test_each_of_eight_tabs_receives_every_event(browser):
    reply = browser.say(MESSAGE)
    message_id = reply.message_id

    tabs = in_parallel(8, lambda number: take(reply if number == 0 else browser.follow(message_id)))

    assert all(tab == tabs[0] for tab in tabs)
    assert_complete(browser, message_id, tabs[0])


@in_a_fleet_too
def test_a_closed_tab_does_not_affect_others(browser):
    reply = browser.say("/slow 0.6 one two three four")
    message_id = reply.message_id
    other = browser.follow(message_id)

    take(reply, 3)
    for _ in range(5):
        take(browser.follow(message_id), 1)

    assert text_of(list(other.events())) == "one two three four"


def test_ids_of_a_reply_increase(browser):
    frames = take(browser.say(MESSAGE))

    ids = [tuple(map(int, id_of(frame).split("-"))) for frame in frames]
    assert all(earlier < later for earlier, later in pairwise(ids))


# The resume point


def test_the_last_event_id_may_be_in_the_query(browser):
    reply = browser.say("one two three")
    frames = take(reply)

    response = browser.request("GET", f"/api/chat/stream/{reply.message_id}?last_event_id={id_of(frames[2])}")

    assert take(response) == frames[3:]


def test_the_header_takes_precedence_over_the_query(browser):
    reply = browser.say("one two three")
    frames = take(reply)

    path = f"/api/chat/stream/{reply.message_id}?last_event_id={id_of(frames[0])}"
    response = browser.request("GET", path, Last_Event_ID=id_of(frames[-2]))

    assert take(response) == frames[-1:]


def test_resuming_after_the_end_gets_204(browser):
    reply = browser.say("one")
    frames = take(reply)

    response = browser.follow(reply.message_id, id_of(frames[-1]))

    assert (response.status, response.read()) == (204, b"")


@pytest.mark.parametrize("last_event_id", ["x", "1", "1-", "-1", "1-x", "1-1-1", "9" * 50 + "-0", "\xe9", "\xc3\xa9", "a b"])
def test_an_invalid_last_event_id_is_a_bad_request(browser, last_event_id):
    reply = browser.say("one")
    take(reply)

    response = browser.follow(reply.message_id, last_event_id, Accept="text/event-stream")

    assert (response.status, response.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("message_id", ["unknown", "a%20b", "%2e%2e", "a%2Fb", "x" * 129, "%00"])
def test_an_unknown_message_id_is_not_found(browser, message_id):
    response = browser.follow(message_id)

    assert (response.status, response.json()["code"]) == (404, "not_found")


def test_another_users_reply_is_not_found(server, browser):
    reply = browser.say("my secret")
    frames = take(reply)
    eve = Browser(server, "eve")

    for after in ("", id_of(frames[0]), id_of(frames[-1])):
        response = eve.follow(reply.message_id, after)
        assert (response.status, response.json()["code"]) == (404, "not_found")


# Details of GET and HEAD


def test_only_the_first_frame_of_a_get_has_retry(browser):
    reply = browser.say("one two three")
    posted = list(reply.frames())
    followed = list(browser.follow(reply.message_id).frames())
    resumed = list(browser.follow(reply.message_id, id_of(posted[1])).frames())

    assert not any("retry:" in frame for frame in posted)
    for frames in (followed, resumed):
        data, event_id, retry = frames[0].splitlines()
        assert data.startswith("data: {")
        assert event_id.startswith("id: ")
        assert 500 <= int(retry.removeprefix("retry: ")) <= 3000
        assert not any("retry:" in frame for frame in frames[1:])


def test_retry_is_jittered(browser):
    message_id = browser.say("one").message_id

    waits = set()
    for _ in range(10):
        with browser.follow(message_id) as reply:
            waits.add(next(reply.frames()).splitlines()[-1])

    assert len(waits) > 5


def test_ids_0_omits_ids(browser):
    reply = browser.request("POST", "/api/chat/stream?ids=0", {"message": "one two"})
    posted = take(reply)
    followed = take(browser.request("GET", f"/api/chat/stream/{reply.message_id}?ids=0"))

    assert posted == followed
    assert len(posted) == 5
    assert all(frame.startswith("data: ") and frame.count("\n") == 1 for frame in posted)


def test_head_requests_leave_nothing_open(server, browser):
    reply = browser.say("/slow 20 one two")
    take(reply, 3)
    baseline = server.descriptors()

    for _ in range(70):
        response = browser.request("HEAD", f"/api/chat/stream/{reply.message_id}")
        assert (response.status, response.headers["X-Message-ID"], response.read()) == (200, reply.message_id, b"")

    assert eventually(lambda: server.descriptors() <= baseline + 4), "70 exceeds the user's limit of streams"
    assert content_of(take(browser.follow(reply.message_id), 1)[0])["type"] == "status"
    browser.stop(reply.message_id).close()


@bundled_only
def test_active_lists_running_and_queued_messages(server, browser):
    replies = [browser.say("/slow 20 one two"), browser.say("second"), browser.say("third")]
    ids = [reply.message_id for reply in replies]
    assert eventually(lambda: browser.active() and browser.active()[0]["state"] == "running")

    assert browser.active() == [
        {"message_id": ids[0], "state": "running", "position": 0},
        {"message_id": ids[1], "state": "queued", "position": 1},
        {"message_id": ids[2], "state": "queued", "position": 2},
    ]
    assert Browser(server, "eve").active() == []

    browser.stop(ids[0]).close()
    for reply in replies:
        list(reply.events())
    assert browser.active() == []


def test_readers_that_reset_the_connection_release_their_slots(start, kind):
    server = start(kind, MAX_STREAMS_PER_USER="4")
    browser = Browser(server)
    message_id = browser.say("one two three").message_id

    # Closing with unread bytes resets the connection. A busy machine detects it late and refuses some requests meanwhile.
    served = [status_of(browser.follow(message_id)) for _ in range(100)].count(200)

    assert served > 4, "more than there are slots"
    assert eventually(lambda: status_of(browser.follow(message_id)) == 200)
    assert eventually(lambda: len([line for line in server.log_lines if line.get("message_id") == message_id]) > served)


def test_an_expired_reply_gets_410(start, kind):
    server = start(kind, RETENTION_SECONDS="0.3")
    browser = Browser(server)
    reply = browser.say("one")
    frames = take(reply)

    assert eventually(lambda: status_of(browser.follow(reply.message_id)) == 410)

    for after in ("", id_of(frames[1])):
        response = browser.follow(reply.message_id, after)
        assert (response.status, response.json()["code"]) == (410, "expired")
    assert status_of(Browser(server, "eve").follow(reply.message_id)) == 404
    assert status_of(browser.stop(reply.message_id)) == 202, "a late stop succeeds"
