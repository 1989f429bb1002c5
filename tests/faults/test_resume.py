"""Cut and gone on with, the answer is the same: greenlets, threads, and with the broker in a process of its own."""

import random
from collections.abc import Iterator
from itertools import accumulate, chain, pairwise, repeat
from math import inf

import pytest

from tests.live import BROKER_KEY, Browser, Server, content_of, eventually, id_of, in_parallel, status_of, take, text_of

SENTENCE = " ".join(f"word-{number}" for number in range(57))
EVENTS = 60
"""Of its answer: two statuses, 57 words, complete."""

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
    """A user of each test's own."""
    return Browser(server, request.node.name[:60])


def read_in_pieces(browser: Browser, lengths: Iterator[float]) -> tuple[str, list[str]]:
    """An answer's frames, read with a connection for each of `lengths` frames; and its message's id."""
    reply = browser.say(SENTENCE)
    message_id, frames = reply.message_id, []
    for length in lengths:
        frames += take(reply, None if length == inf else int(length))
        reply = browser.follow(message_id, id_of(frames[-1]))
        if reply.status == 204:
            reply.close()
            break
    return message_id, frames


def assert_whole(browser: Browser, message_id: str, frames: list[str]) -> None:
    assert frames == take(browser.follow(message_id)), "as an uncut reader gets it"
    assert len(frames) == EVENTS
    assert content_of(frames[-1])["response"]["responses"] == [SENTENCE]


# Cuts


def test_an_answer_cut_after_any_of_its_events_is_whole(server):
    def cut_after(number: int) -> None:
        browser = Browser(server, f"user-{number % 6}")
        for length in range(1 + number, EVENTS + 1, 6):
            assert_whole(browser, *read_in_pieces(browser, iter([length, inf, inf])))

    in_parallel(6, cut_after)


@in_a_fleet_too
def test_an_answer_cut_after_each_of_its_events_is_whole(browser):
    assert_whole(browser, *read_in_pieces(browser, repeat(1)))


@in_a_fleet_too
def test_answers_cut_at_random_several_times_are_whole(server):
    def cut(number: int) -> int:
        chance, browser, cuts = random.Random(number), Browser(server, f"random-{number}"), 0
        while cuts < 50:
            lengths = [chance.choice([1, 2, 5, 12]) for _ in range(8)]
            assert_whole(browser, *read_in_pieces(browser, chain(lengths, repeat(inf))))
            cuts += len([end for end in accumulate(lengths) if end < EVENTS])
        return cuts

    assert sum(in_parallel(4, cut)) >= 200


@in_a_fleet_too
def test_an_answer_goes_on_while_nobody_reads_it(browser):
    reply = browser.say("/slow 0.5 one two three four five")
    first = take(reply, 3)

    assert eventually(lambda: browser.active() == [])

    rest = take(browser.follow(reply.message_id, id_of(first[-1])))
    assert first + rest == take(browser.follow(reply.message_id))
    assert "".join(content_of(frame).get("text", "") for frame in first + rest) == "one two three four five"


# Readers


@in_a_fleet_too
def test_each_of_eight_tabs_gets_every_event(browser):
    reply = browser.say(SENTENCE)
    message_id = reply.message_id

    tabs = in_parallel(8, lambda number: take(reply if number == 0 else browser.follow(message_id)))

    assert all(tab == tabs[0] for tab in tabs)
    assert_whole(browser, message_id, tabs[0])


@in_a_fleet_too
def test_a_tab_that_closes_takes_nothing_from_the_others(browser):
    reply = browser.say("/slow 0.6 one two three four")
    message_id = reply.message_id
    staying = browser.follow(message_id)

    take(reply, 3)
    for _ in range(5):
        take(browser.follow(message_id), 1)

    assert text_of(list(staying.events())) == "one two three four"


def test_ids_of_one_answer_are_different_and_in_order(browser):
    frames = take(browser.say(SENTENCE))

    ids = [tuple(map(int, id_of(frame).split("-"))) for frame in frames]
    assert all(earlier < later for earlier, later in pairwise(ids))


# Where to go on


def test_the_last_event_id_may_stand_in_the_address(browser):
    reply = browser.say("one two three")
    frames = take(reply)

    asked = browser.request("GET", f"/api/chat/stream/{reply.message_id}?last_event_id={id_of(frames[2])}")

    assert take(asked) == frames[3:]


def test_the_header_is_newer_than_the_address(browser):
    reply = browser.say("one two three")
    frames = take(reply)

    path = f"/api/chat/stream/{reply.message_id}?last_event_id={id_of(frames[0])}"
    asked = browser.request("GET", path, Last_Event_ID=id_of(frames[-2]))

    assert take(asked) == frames[-1:]


def test_who_has_seen_the_end_is_told_not_to_come_back(browser):
    reply = browser.say("one")
    frames = take(reply)

    asked = browser.follow(reply.message_id, id_of(frames[-1]))

    assert (asked.status, asked.read()) == (204, b"")


@pytest.mark.parametrize("last_event_id", ["x", "1", "1-", "-1", "1-x", "1-1-1", "9" * 50 + "-0", "\xe9", "\xc3\xa9", "a b"])
def test_a_last_event_id_that_is_none_is_a_bad_request(browser, last_event_id):
    reply = browser.say("one")
    take(reply)

    asked = browser.follow(reply.message_id, last_event_id, Accept="text/event-stream")

    assert (asked.status, asked.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("message_id", ["unknown", "a%20b", "%2e%2e", "a%2Fb", "x" * 129, "%00"])
def test_an_answer_that_nobody_knows_is_not_found(browser, message_id):
    asked = browser.follow(message_id)

    assert (asked.status, asked.json()["code"]) == (404, "not_found")


def test_somebody_elses_answer_is_not_found(server, browser):
    reply = browser.say("my secret")
    frames = take(reply)
    eve = Browser(server, "eve")

    for after in ("", id_of(frames[0]), id_of(frames[-1])):
        asked = eve.follow(reply.message_id, after)
        assert (asked.status, asked.json()["code"]) == (404, "not_found")


# What a GET says and what it leaves


def test_only_the_first_frame_of_a_get_says_when_to_come_back(browser):
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


def test_readers_do_not_all_come_back_at_once(browser):
    message_id = browser.say("one").message_id

    waits = set()
    for _ in range(10):
        with browser.follow(message_id) as reply:
            waits.add(next(reply.frames()).splitlines()[-1])

    assert len(waits) > 5


def test_ids_are_left_out_for_who_cannot_read_them(browser):
    reply = browser.request("POST", "/api/chat/stream?ids=0", {"message": "one two"})
    posted = take(reply)
    followed = take(browser.request("GET", f"/api/chat/stream/{reply.message_id}?ids=0"))

    assert posted == followed
    assert len(posted) == 5
    assert all(frame.startswith("data: ") and frame.count("\n") == 1 for frame in posted)


def test_asking_for_the_head_alone_leaves_nothing_open(server, browser):
    reply = browser.say("/slow 20 one two")
    take(reply, 3)
    base = server.descriptors()

    for _ in range(70):
        asked = browser.request("HEAD", f"/api/chat/stream/{reply.message_id}")
        assert (asked.status, asked.headers["X-Message-ID"], asked.read()) == (200, reply.message_id, b"")

    assert eventually(lambda: server.descriptors() <= base + 4), "70 is more than a user may have open"
    assert content_of(take(browser.follow(reply.message_id), 1)[0])["type"] == "status"
    browser.stop(reply.message_id).close()


@bundled_only
def test_a_new_tab_learns_what_waits_and_what_runs(server, browser):
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


def test_readers_that_reset_the_connection_hold_nothing(start, kind):
    server = start(kind, MAX_STREAMS_PER_USER="4")
    browser = Browser(server)
    message_id = browser.say("one two three").message_id

    # Left with bytes unread, which makes it a reset. A busy machine notices late, and refuses some meanwhile.
    served = [status_of(browser.follow(message_id)) for _ in range(100)].count(200)

    assert served > 4, "more than there are places"
    assert eventually(lambda: status_of(browser.follow(message_id)) == 200)
    assert eventually(lambda: len([line for line in server.log_lines if line.get("message_id") == message_id]) > served)


def test_a_log_that_is_gone_is_said_to_be_gone(start, kind):
    server = start(kind, RETENTION_SECONDS="0.3")
    browser = Browser(server)
    reply = browser.say("one")
    frames = take(reply)

    assert eventually(lambda: status_of(browser.follow(reply.message_id)) == 410)

    for after in ("", id_of(frames[1])):
        asked = browser.follow(reply.message_id, after)
        assert (asked.status, asked.json()["code"]) == (410, "expired")
    assert status_of(Browser(server, "eve").follow(reply.message_id)) == 404
    assert status_of(browser.stop(reply.message_id)) == 202, "a stale stop"
