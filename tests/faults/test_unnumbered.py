"""A broker that numbers nothing gets the guarantees of our own: its one stream is read to its end, into our log."""

import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.db.talk import Talk, told
from tests.faults.houses import house
from tests.live import BROKER_KEY, Browser, Reply, Server, content_of, eventually, id_of, in_parallel, last_of, take, text_of
from tests.original_broker import OriginalBroker

pytestmark = pytest.mark.live

LONG = "one two three four five six seven eight"


@pytest.fixture(scope="module", params=["gunicorn", "flask", "fleet"])
def world(request, tmp_path_factory) -> Iterator[tuple[Server, OriginalBroker]]:
    """A server before the broker; as a fleet, two web processes that do not claim, and two workers."""
    redis = request.getfixturevalue("redis") if request.param == "fleet" else None
    with OriginalBroker() as broker:
        settings = {**settings_of(broker), "ENGINE_BASE_URL": broker.url}
        with house(request.param, tmp_path_factory.mktemp(request.param), redis, **settings) as server:
            yield server, broker


@pytest.fixture
def broker(request):
    """The one of the server that the test uses, or its own."""
    if "serve" not in request.fixturenames:
        with OriginalBroker(word_seconds=0.05) as broker:
            yield broker
        return
    _, broker = request.getfixturevalue("world")
    broker.reset()
    broker.word_seconds, broker.stray_streams, broker.keeps_history = 0.05, 0, True
    yield broker


@pytest.fixture
def serve(world, broker):
    """The shared server."""
    return lambda: world[0]


def settings_of(broker: OriginalBroker) -> dict[str, str]:
    return {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY}


def ask(browser: Browser, message: str, **more: str) -> Reply:
    return browser.request("POST", "/api/chat/stream", {"message": message, **more})


def assert_not_found(reply) -> None:
    assert (reply.status, reply.json()["code"]) == (404, "not_found")


def types_of(frames: list[str]) -> list[str]:
    return [content_of(frame)["type"] for frame in frames]


def statuses_of(frames: list[str]) -> list[str]:
    return [content["message"] for content in map(content_of, frames) if content["type"] == "status"]


def test_an_answer_whose_browser_leaves_is_read_to_its_end_and_the_next_one_goes_on(serve, broker):
    browser = Browser(serve())
    left = browser.say("one two three four five")
    unread = browser.say("six seven")
    take(left, 3)
    unread.leave()

    reply = browser.say("eight nine")

    assert text_of(list(reply.events())) == "eight nine "
    assert eventually(lambda: broker.answered == ["one two three four five", "six seven", "eight nine"])
    assert len(broker.opened) == 3, "one stream for each"
    assert broker.given_up == []


def test_queued_and_processing_are_told_once_each(serve):
    frames = take(Browser(serve()).say("one two"))

    assert statuses_of(frames) == ["Message queued...", "Processing..."]
    assert types_of(frames)[-1] == "complete"


def test_every_tab_gets_all_of_it_from_any_place(serve, broker):
    browser = Browser(serve())
    reply = browser.say("one two three four five")
    message_id = reply.message_id
    first = take(reply, 3)

    tabs = in_parallel(4, lambda _: take(browser.follow(message_id)))
    later = take(browser.follow(message_id))
    rest = take(browser.follow(message_id, id_of(first[-1])))

    assert all(tab == later for tab in tabs)
    assert later == first + rest
    assert "".join(content_of(frame).get("text", "") for frame in later) == "one two three four five "
    assert all("\nid:" in frame for frame in later)
    assert len(broker.opened) == 1


def test_an_open_tab_learns_what_runs_and_what_waits(serve, broker):
    server = serve()
    browser = Browser(server)
    reply, waiting = browser.say(LONG), browser.say("next")

    assert browser.active() == [
        {"message_id": reply.message_id, "state": "running", "position": 0},
        {"message_id": waiting.message_id, "state": "queued", "position": 1},
    ]
    assert Browser(server, "eve").active() == []
    take(waiting)
    assert eventually(lambda: browser.active() == [])


def test_nobody_elses_and_no_unknown_answer_is_found_or_opened(serve, broker):
    server = serve()
    browser, eve = Browser(server), Browser(server, "eve")
    reply = browser.say("one two three")

    for who, message_id in ((eve, reply.message_id), (browser, "unknown")):
        assert_not_found(who.follow(message_id))
        assert_not_found(who.follow(message_id, "1-0"))
        assert_not_found(who.stop(message_id))

    assert last_of(reply)["type"] == "complete"
    assert len(broker.opened) == 1


def test_resume_works_in_each_of_several_processes(start, clean_redis, broker):
    settings = {**settings_of(broker), "REDIS_URL": clean_redis.url}
    one, other = start(**settings), start(**settings)
    replies = [Browser(one, f"user-{number}").say(LONG) for number in range(15)]
    seen = [take(reply, 3) for reply in replies]

    def rest(number: int) -> list[str]:
        browser = Browser((one, other)[number % 2], f"user-{number}")
        return take(browser.follow(replies[number].message_id, id_of(seen[number][-1])))

    for number, frames in enumerate(in_parallel(15, rest)):
        assert "".join(content_of(frame).get("text", "") for frame in seen[number] + frames) == LONG + " "


def test_a_stop_is_told_at_once_and_the_next_message_waits_for_the_broker(serve, broker):
    browser = Browser(serve())
    reply = browser.say(LONG)
    message_id, tab = reply.message_id, browser.follow(reply.message_id)
    take(tab, 4)

    for _ in range(2):
        with browser.stop(message_id) as stopping:
            assert stopping.status == 202
    contents = [content_of(frame) for frame in take(reply)]
    assert broker.answered == []
    following = browser.say("next")

    said = "".join(content.get("text", "") for content in contents)
    assert said.startswith("one two ")
    assert said != LONG + " "
    response = {"responses": [said], "response_language": None, "voice_audio_base64": None}
    assert contents[-1] == {"type": "stopped", "response": response}
    assert last_of(browser.follow(message_id)) == contents[-1]
    assert [place["message_id"] for place in browser.active()] == [following.message_id]
    assert last_of(following)["type"] == "complete"
    assert eventually(lambda: broker.answered == [LONG, "next"])
    assert broker.at_once == {"ada": 1}


def test_a_waiting_message_that_is_stopped_never_reaches_the_broker(serve, broker):
    browser = Browser(serve())
    running, waiting = browser.say("one two three"), browser.say("never")

    browser.stop(waiting.message_id).read()

    assert types_of(take(waiting))[-1] == "stopped"
    assert last_of(running)["type"] == "complete"
    assert last_of(browser.say("last"))["type"] == "complete"
    assert broker.left == ["one two three", "last"]


def test_a_stop_that_comes_too_late_changes_nothing(serve):
    browser = Browser(serve())
    reply = browser.say("one two")
    frames = take(reply)
    assert eventually(lambda: browser.active() == [])

    with browser.stop(reply.message_id) as stopping:
        assert stopping.status == 202

    assert take(browser.follow(reply.message_id)) == frames


def test_the_same_message_sent_three_times_is_one_turn(serve, broker):
    browser = Browser(serve())
    replies = in_parallel(3, lambda _: ask(browser, "one two three", client_message_id="once"))

    assert len({reply.message_id for reply in replies}) == 1
    assert {last_of(reply)["type"] for reply in replies} == {"complete"}
    assert broker.left == ["one two three"]


def test_on_busy_is_respected(serve, broker):
    browser = Browser(serve())
    first = browser.say(LONG)
    take(browser.follow(first.message_id), 3)

    refused = ask(browser, "refused", on_busy="reject")
    hurried = ask(browser, "hurried", on_busy="interrupt")

    assert (refused.status, refused.json()["code"]) == (409, "busy")
    assert types_of(take(first))[-1] == "stopped"
    assert last_of(hurried)["type"] == "complete"
    assert broker.left == [LONG, "hurried"]


def test_twenty_rapid_messages_that_hold_a_stream_each_are_answered_in_order(serve, broker):
    broker.word_seconds = 0.005
    browser = Browser(serve())
    replies = [browser.say(f"number {number}") for number in range(20)]

    texts = in_parallel(20, lambda number: text_of(list(replies[number].events())))

    assert texts == [f"number {number} " for number in range(20)]
    assert broker.answered == [f"number {number}" for number in range(20)]
    assert broker.at_once == {"ada": 1}


def test_a_queue_of_messages_goes_on_while_no_place_for_an_engine_is_free(start, broker):
    server = start(**settings_of(broker), MAX_RUNNING="1")
    busy = Talk(server, "bob")
    frames = told(busy.hear(busy.begin("/slow 600 one two", agentId="demo")))
    assert next(frame for frame in frames if frame.get("event") == "token")

    replies = [Browser(server).say(f"number {number}") for number in range(3)]

    assert [last_of(reply)["type"] for reply in replies] == ["complete"] * 3
    assert broker.answered == ["number 0", "number 1", "number 2"]


def test_users_do_not_wait_for_each_other(serve, broker):
    server = serve()
    replies = [Browser(server, f"user-{number}").say(LONG) for number in range(20)]

    assert {last_of(reply)["type"] for reply in replies} == {"complete"}
    assert len(broker.at_once) == 20


def test_line_separators_in_an_answer_change_nothing(serve):
    said = "one\u2028two\u2029 three\x85 four"

    events = list(Browser(serve()).say(said).events())

    assert text_of(events) == said + " "
    assert events[-1]["response"]["responses"] == [said]


def test_a_message_without_a_slot_is_asked_for_again(start, single):
    with OriginalBroker(word_seconds=0.01, slot_seconds=0.2, lock_seconds=1.0) as broker:
        server = start(single, **settings_of(broker))
        broker.hold_lock("ada", 1.0)

        events = list(Browser(server).say("one two").events())

    assert text_of(events) == "one two "
    assert events[-1]["type"] == "complete"
    assert broker.left == ["one two"]
    assert len(set(broker.opened)) == 1 < len(broker.opened)


def test_a_broker_that_has_no_slot_for_too_long_ends_as_a_timeout(start, single):
    with OriginalBroker(slot_seconds=0.05) as broker:
        broker.hold_lock("ada", 60.0)
        browser = Browser(start(single, **settings_of(broker), ANSWER_MAX_SECONDS="1"))

        last = last_of(browser.say("one two"))

    assert (last["type"], last["code"]) == ("error", "answer_timeout")


def test_an_answer_without_an_end_is_given_up(start, single, broker):
    browser = Browser(start(single, **settings_of(broker), ANSWER_MAX_SECONDS="0.5"))
    endless = " ".join(["word"] * 1000)
    reply, left = browser.say(endless), Browser(browser.url, "bob").say(endless)
    take(left, 3)

    last = last_of(reply)

    assert (last["type"], last["code"]) == ("error", "answer_timeout")
    assert eventually(lambda: broker.given_up == [endless, endless]), "with a reader and without"


def test_a_broker_that_goes_away_in_the_middle_is_one_error(serve, broker):
    browser = Browser(serve())
    reply = browser.say(" ".join(["word"] * 100))
    tab = browser.follow(reply.message_id)
    take(browser.follow(reply.message_id), 3)

    broker.hang_up()

    for reader in (reply, tab):
        kinds = types_of(take(reader))
        assert kinds[-1] == "error"
        assert kinds.count("error") == 1


def test_a_killed_broker_that_comes_back_is_given_again_what_had_not_begun(serve, broker):
    broker.word_seconds = 0.5
    browser = Browser(serve())
    reply = browser.say("one two")
    assert eventually(lambda: broker.opened)

    broker.kill()
    broker.word_seconds = 0.01
    broker.come_back()

    events = list(reply.events())
    assert (text_of(events), events[-1]["type"]) == ("one two ", "complete")
    assert broker.left == ["one two", "one two"]


def test_a_killed_broker_that_comes_back_is_not_given_again_what_had_begun(serve, broker):
    browser = Browser(serve())
    reply = browser.say(LONG)
    take(browser.follow(reply.message_id), 4)

    broker.kill()
    broker.come_back()

    assert last_of(reply)["code"] == "upstream_unavailable"
    assert broker.left == [LONG]


def test_an_answer_the_broker_lost_is_taken_from_the_engines_history(serve, broker):
    broker.stray_streams = 1
    browser = Browser(serve())

    events = list(browser.say("one two").events())

    assert events[-1]["type"] == "complete"
    assert events[-1]["response"]["responses"] == ["one two"]
    assert broker.left == ["one two"]


def test_an_earlier_turn_of_the_same_words_is_not_taken_for_the_answer(serve, broker):
    browser = Browser(serve())
    take(browser.say("yes"))
    broker.stray_streams, broker.keeps_history = 1, False

    last = last_of(browser.say("yes"))

    assert (last["type"], last["code"]) == ("error", "answer_incomplete")


@pytest.mark.parametrize("protocol", ["ai-sdk", "ag-ui"])
def test_other_protocols_are_served_from_the_same_log(start, single, broker, protocol):
    browser = Browser(start(single, **settings_of(broker)))
    reply = browser.say("one two three")
    take(reply)

    followed = browser.request("GET", f"/api/chat/stream/{reply.message_id}?protocol={protocol}").read()

    assert b"three" in followed


@pytest.mark.parametrize("stream", [True, False])
def test_openais_clients_are_served_from_our_log_too(serve, broker, stream):
    completion = {"model": "default", "messages": [{"role": "user", "content": "one two"}], "stream": stream}

    said = Browser(serve()).request("POST", "/v1/chat/completions", completion).read()

    assert b"two" in said
    assert b"finish_reason" in said
    assert (broker.left, len(broker.opened)) == (["one two"], 1)
    assert broker.given_up == []


def test_an_openai_client_that_leaves_holds_up_no_next_message(serve, broker):
    browser = Browser(serve())
    completion = {"model": "default", "messages": [{"role": "user", "content": LONG}], "stream": True}
    take(browser.request("POST", "/v1/chat/completions", completion), 2)

    assert last_of(browser.say("next"))["type"] == "complete"
    assert broker.answered == [LONG, "next"]
    assert broker.given_up == []


def test_a_worker_that_dies_in_the_middle_interrupts_what_had_begun(start, clean_redis, broker):
    settings = {**settings_of(broker), "REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1"}
    dying, alive = start(**settings), start(**settings)
    reply = Browser(dying).say(" ".join(["word"] * 200))
    seen = take(reply, 4)

    dying.crash()

    last = last_of(Browser(alive).follow(reply.message_id, id_of(seen[-1])))
    assert (last["type"], last["code"]) == ("error", "interrupted")


def test_a_worker_that_dies_before_anything_was_said_leaves_it_to_another(start, clean_redis, broker):
    broker.lock_seconds = 0.5
    broker.word_seconds = 1.0
    settings = {**settings_of(broker), "REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1"}
    dying, alive = start(**settings), start(**settings)
    reply = Browser(dying).say("one two")
    assert eventually(lambda: broker.opened)

    dying.crash()
    broker.word_seconds = 0.01

    assert last_of(Browser(alive).follow(reply.message_id))["type"] == "complete"


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_a_drain_finishes_answers_that_nobody_reads(start, request, broker, shared):
    broker.word_seconds = 0.1
    settings = {"REDIS_URL": request.getfixturevalue("clean_redis").url} if shared else {}
    server = start(**settings_of(broker), **settings, DRAIN_SECONDS="8")
    for number in range(20):
        reply = Browser(server, f"user-{number}").say(LONG)
        take(reply, 3)
        reply.leave()

    server.kill(signal.SIGTERM)
    assert server.process.wait(15) == 0

    assert broker.answered == [LONG] * 20
    assert broker.given_up == []
    fresh = start(**settings_of(broker))
    replies = [Browser(fresh, f"user-{number}").say("next") for number in range(20)]
    assert {last_of(reply)["type"] for reply in replies} == {"complete"}


def test_a_message_that_cannot_be_left_is_plain_json_and_may_come_again(start, single, broker):
    broker.kill()
    browser = Browser(start(single, **settings_of(broker)))

    refused = ask(browser, "one two", client_message_id="once")
    assert (refused.status, refused.json()["code"]) == (503, "upstream_unavailable")

    broker.come_back()
    assert last_of(ask(browser, "one two", client_message_id="once"))["type"] == "complete"
    assert browser.active() == []


def test_answers_of_one_user_follow_each_other_in_every_log(serve, broker):
    browser = Browser(serve())
    replies = [browser.say(f"number {number}") for number in range(5)]

    frames = in_parallel(5, lambda number: take(replies[number]))

    said = [[id_of(frame) for frame in answer if content_of(frame)["type"] != "status"] for answer in frames]
    numbers = [[tuple(map(int, one.split("-"))) for one in answer] for answer in said]
    assert all(before[-1] < after[0] for before, after in pairwise(numbers))
