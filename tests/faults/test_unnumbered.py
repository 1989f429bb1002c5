"""The broker that numbers nothing: one stream a message, read to its end whoever reads along, leaves, or stops it."""

import pytest

from tests.live import BROKER_KEY, Browser, Server, content_of, eventually, in_parallel, last_of, take, text_of
from tests.original_broker import OriginalBroker

pytestmark = pytest.mark.live


@pytest.fixture
def broker():
    with OriginalBroker(word_seconds=0.05) as broker:
        yield broker


def start_with(start, single: str, broker: OriginalBroker, **settings: str) -> Server:
    return start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)


def assert_not_found(reply) -> None:
    assert (reply.status, reply.json()["code"]) == (404, "not_found")


def test_an_answer_whose_browser_leaves_is_read_to_its_end_and_the_next_one_goes_on(start, single, broker):
    browser = Browser(start_with(start, single, broker))
    left = browser.say("one two three four five")
    unread = browser.say("six seven")
    take(left, 3)
    unread.leave()

    reply = browser.say("eight nine")

    assert text_of(list(reply.events())) == "eight nine "
    assert eventually(lambda: broker.answered == ["one two three four five", "six seven", "eight nine"])
    assert broker.opened == [left.message_id, unread.message_id, reply.message_id], "one stream for each"
    assert broker.given_up == []


def test_the_first_answer_of_a_process_is_kept_too(start, single, broker):
    browser = Browser(start_with(start, single, broker))
    first = browser.say("one two three four five")

    first.leave()

    assert eventually(lambda: broker.answered == ["one two three four five"])
    assert last_of(browser.follow(first.message_id))["type"] == "complete"


def test_every_tab_gets_all_of_it_from_the_start(start, single, broker):
    browser = Browser(start_with(start, single, broker))
    reply = browser.say("one two three four five")
    message_id = reply.message_id
    first = take(reply, 3)

    tabs = in_parallel(4, lambda _: take(browser.follow(message_id)))
    later = take(browser.follow(message_id))

    assert all(tab == later for tab in tabs)
    assert later[:3] == first
    assert "".join(content_of(frame).get("text", "") for frame in later) == "one two three four five "
    assert not any("\nid:" in frame for frame in later), "it has no ids to give"
    assert broker.opened == [message_id]


def test_an_open_tab_learns_what_runs(start, single, broker):
    server = start_with(start, single, broker)
    browser = Browser(server)
    reply = browser.say("one two three four five")

    assert browser.active() == [{"message_id": reply.message_id, "state": "running", "position": 0}]
    assert Browser(server, "eve").active() == []
    take(reply)
    assert eventually(lambda: browser.active() == [])


def test_nobody_elses_and_no_unknown_answer_is_found_or_opened(start, single, broker):
    server = start_with(start, single, broker)
    browser, eve = Browser(server), Browser(server, "eve")
    reply = browser.say("one two three")

    for who, message_id in ((eve, reply.message_id), (browser, "unknown")):
        assert_not_found(who.follow(message_id))
        assert_not_found(who.follow(message_id, "1-0"))
        assert_not_found(who.stop(message_id))

    assert last_of(reply)["type"] == "complete"
    assert broker.opened == [reply.message_id]


@pytest.mark.parametrize("after", ["", "1-0"], ids=["from the start", "after an id"])
def test_a_process_that_never_read_it_does_not_steal_it(start, single, broker, after):
    reply = Browser(start_with(start, single, broker)).say("one two three four five six seven eight nine ten")
    fresh = start_with(start, single, broker)

    assert_not_found(Browser(fresh, "eve").follow(reply.message_id, after))
    assert_not_found(Browser(fresh).follow(reply.message_id, after))
    assert_not_found(Browser(fresh).stop(reply.message_id))

    assert last_of(reply)["type"] == "complete"
    assert broker.opened == [reply.message_id]


def test_a_stop_ends_it_for_its_readers_and_the_rest_is_read_and_dropped(start, single, broker):
    browser = Browser(start_with(start, single, broker))
    reply = browser.say("one two three four five six seven eight")
    message_id, tab = reply.message_id, browser.follow(reply.message_id)
    take(tab, 4)

    for _ in range(2):
        with browser.stop(message_id) as stopping:
            assert stopping.status == 202
    following = browser.say("next")

    contents = [content_of(frame) for frame in take(reply)]
    said = "".join(content.get("text", "") for content in contents)
    assert said.startswith("one two ")
    assert said != "one two three four five six seven eight "
    response = {"responses": [said], "response_language": None, "voice_audio_base64": None}
    assert contents[-1] == {"type": "stopped", "response": response}
    assert last_of(browser.follow(message_id)) == contents[-1]
    assert last_of(following)["type"] == "complete"
    assert eventually(lambda: broker.answered == ["one two three four five six seven eight", "next"])


def test_a_stop_that_comes_too_late_changes_nothing(start, single, broker):
    browser = Browser(start_with(start, single, broker))
    reply = browser.say("one two")
    frames = take(reply)
    assert eventually(lambda: browser.active() == [])

    with browser.stop(reply.message_id) as stopping:
        assert stopping.status == 202

    assert take(browser.follow(reply.message_id)) == frames


def test_an_answer_without_an_end_is_given_up(start, single, broker):
    browser = Browser(start_with(start, single, broker, ANSWER_MAX_SECONDS="0.5"))
    endless = " ".join(["word"] * 1000)
    reply, left = browser.say(endless), Browser(browser.url, "bob").say(endless)
    take(left, 3)

    last = last_of(reply)

    assert (last["type"], last["code"]) == ("error", "answer_timeout")
    assert eventually(lambda: broker.given_up == [endless, endless]), "with a reader and without"


def test_a_broker_that_goes_away_in_the_middle_is_one_error(start, single, broker):
    browser = Browser(start_with(start, single, broker))
    reply = browser.say("one two three four five")
    tab = browser.follow(reply.message_id)
    take(browser.follow(reply.message_id), 3)

    broker.hang_up()

    for reader in (reply, tab):
        kinds = [content_of(frame)["type"] for frame in take(reader)]
        assert kinds[-1] == "error"
        assert kinds.count("error") == 1
