"""A broker without event ids gets the bundled broker's guarantees: its one stream is recorded in the bundled log."""

import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.db.talk import ConversationBrowser, parse_frames
from tests.faults.deployments import deployment
from tests.live import BROKER_KEY, Browser, Reply, Server, content_of, eventually, id_of, in_parallel, last_of, take, text_of
from tests.original_broker import OriginalBroker

pytestmark = pytest.mark.live

LONG_MESSAGE = "one two three four five six seven eight"


@pytest.fixture(scope="module", params=["gunicorn", "flask", "fleet"])
def environment(request, tmp_path_factory) -> Iterator[tuple[Server, OriginalBroker]]:
    """A server and its broker; as a fleet, two web processes without workers, and two workers."""
    redis = request.getfixturevalue("redis") if request.param == "fleet" else None
    with OriginalBroker() as broker:
        settings = {**settings_of(broker), "ENGINE_BASE_URL": broker.url}
        with deployment(request.param, tmp_path_factory.mktemp(request.param), redis, **settings) as server:
            yield server, broker


@pytest.fixture
def broker(request):
    """The broker of the shared server if the test uses it, otherwise a new one."""
    if "shared_server" not in request.fixturenames:
        with OriginalBroker(word_seconds=0.05) as broker:
            yield broker
        return
    _, broker = request.getfixturevalue("environment")
    broker.reset()
    broker.word_seconds, broker.stray_streams, broker.stores_history = 0.05, 0, True
    yield broker


@pytest.fixture
def shared_server(environment, broker):
    """`shared_server()` returns the server of the environment, after the broker was reset."""
    return lambda: environment[0]


def settings_of(broker: OriginalBroker) -> dict[str, str]:
    return {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY}


def post(browser: Browser, message: str, **fields: str) -> Reply:
    return browser.request("POST", "/api/chat/stream", {"message": message, **fields})


def assert_not_found(reply) -> None:
    assert (reply.status, reply.json()["code"]) == (404, "not_found")


def types_of(frames: list[str]) -> list[str]:
    return [content_of(frame)["type"] for frame in frames]


def statuses_of(frames: list[str]) -> list[str]:
    return [content["message"] for content in map(content_of, frames) if content["type"] == "status"]


def test_abandoned_replies_are_read_to_their_end_before_the_next_one(shared_server, broker):
    browser = Browser(shared_server())
    abandoned = browser.say("one two three four five")
    unread = browser.say("six seven")
    take(abandoned, 3)
    unread.leave()

    reply = browser.say("eight nine")

    assert text_of(list(reply.events())) == "eight nine "
    assert eventually(lambda: broker.completed == ["one two three four five", "six seven", "eight nine"])
    assert len(broker.opened) == 3, "one stream per message"
    assert broker.given_up == []


def test_queued_and_processing_are_sent_once_each(shared_server):
    frames = take(Browser(shared_server()).say("one two"))

    assert statuses_of(frames) == ["Message queued...", "Processing..."]
    assert types_of(frames)[-1] == "complete"


def test_every_tab_receives_the_reply_from_any_event(shared_server, broker):
    browser = Browser(shared_server())
    reply = browser.say("one two three four five")
    message_id = reply.message_id
    first = take(reply, 3)

    tabs = in_parallel(4, lambda _: take(browser.follow(message_id)))
    reread = take(browser.follow(message_id))
    rest = take(browser.follow(message_id, id_of(first[-1])))

    assert all(tab == reread for tab in tabs)
    assert reread == first + rest
    assert "".join(content_of(frame).get("text", "") for frame in reread) == "one two three four five "
    assert all("\nid:" in frame for frame in reread)
    assert len(broker.opened) == 1


def test_active_lists_running_and_queued_messages(shared_server, broker):
    server = shared_server()
    browser = Browser(server)
    reply, waiting = browser.say(LONG_MESSAGE), browser.say("next")

    assert browser.active() == [
        {"message_id": reply.message_id, "state": "running", "position": 0},
        {"message_id": waiting.message_id, "state": "queued", "position": 1},
    ]
    assert Browser(server, "eve").active() == []
    take(waiting)
    assert eventually(lambda: browser.active() == [])


def test_unknown_replies_and_those_of_others_are_not_found(shared_server, broker):
    server = shared_server()
    browser, eve = Browser(server), Browser(server, "eve")
    reply = browser.say("one two three")

    for reader, message_id in ((eve, reply.message_id), (browser, "unknown")):
        assert_not_found(reader.follow(message_id))
        assert_not_found(reader.follow(message_id, "1-0"))
        assert_not_found(reader.stop(message_id))

    assert last_of(reply)["type"] == "complete"
    assert len(broker.opened) == 1


def test_resume_works_in_each_of_several_processes(start, clean_redis, broker):
    settings = {**settings_of(broker), "REDIS_URL": clean_redis.url}
    first, second = start(**settings), start(**settings)
    replies = [Browser(first, f"user-{number}").say(LONG_MESSAGE) for number in range(15)]
    seen = [take(reply, 3) for reply in replies]

    def rest(number: int) -> list[str]:
        browser = Browser((first, second)[number % 2], f"user-{number}")
        return take(browser.follow(replies[number].message_id, id_of(seen[number][-1])))

    for number, frames in enumerate(in_parallel(15, rest)):
        assert "".join(content_of(frame).get("text", "") for frame in seen[number] + frames) == LONG_MESSAGE + " "


def test_a_stop_takes_effect_at_once_and_the_next_message_waits_for_the_broker(shared_server, broker):
    browser = Browser(shared_server())
    reply = browser.say(LONG_MESSAGE)
    message_id, tab = reply.message_id, browser.follow(reply.message_id)
    take(tab, 4)

    for _ in range(2):
        with browser.stop(message_id) as stopping:
            assert stopping.status == 202
    contents = [content_of(frame) for frame in take(reply)]
    assert broker.completed == []
    following = browser.say("next")

    text = "".join(content.get("text", "") for content in contents)
    assert text.startswith("one two ")
    assert text != LONG_MESSAGE + " "
    response = {"responses": [text], "response_language": None, "voice_audio_base64": None}
    assert contents[-1] == {"type": "stopped", "response": response}
    assert last_of(browser.follow(message_id)) == contents[-1]
    assert [position["message_id"] for position in browser.active()] == [following.message_id]
    assert last_of(following)["type"] == "complete"
    assert eventually(lambda: broker.completed == [LONG_MESSAGE, "next"])
    assert broker.max_concurrent == {"ada": 1}


def test_a_queued_message_that_is_stopped_never_reaches_the_broker(shared_server, broker):
    browser = Browser(shared_server())
    running, waiting = browser.say("one two three"), browser.say("never")

    browser.stop(waiting.message_id).read()

    assert types_of(take(waiting))[-1] == "stopped"
    assert last_of(running)["type"] == "complete"
    assert last_of(browser.say("last"))["type"] == "complete"
    assert broker.received == ["one two three", "last"]


def test_a_stop_after_the_end_changes_nothing(shared_server):
    browser = Browser(shared_server())
    reply = browser.say("one two")
    frames = take(reply)
    assert eventually(lambda: browser.active() == [])

    with browser.stop(reply.message_id) as stopping:
        assert stopping.status == 202

    assert take(browser.follow(reply.message_id)) == frames


def test_the_same_message_sent_three_times_makes_one_turn(shared_server, broker):
    browser = Browser(shared_server())
    replies = in_parallel(3, lambda _: post(browser, "one two three", client_message_id="once"))

    assert len({reply.message_id for reply in replies}) == 1
    assert {last_of(reply)["type"] for reply in replies} == {"complete"}
    assert broker.received == ["one two three"]


def test_on_busy_is_respected(shared_server, broker):
    browser = Browser(shared_server())
    first = browser.say(LONG_MESSAGE)
    take(browser.follow(first.message_id), 3)

    refused = post(browser, "refused", on_busy="reject")
    interrupting = post(browser, "interrupting", on_busy="interrupt")

    assert (refused.status, refused.json()["code"]) == (409, "busy")
    assert types_of(take(first))[-1] == "stopped"
    assert last_of(interrupting)["type"] == "complete"
    assert broker.received == [LONG_MESSAGE, "interrupting"]


def test_twenty_rapid_messages_get_replies_in_order(shared_server, broker):
    broker.word_seconds = 0.005
    browser = Browser(shared_server())
    replies = [browser.say(f"number {number}") for number in range(20)]

    texts = in_parallel(20, lambda number: text_of(list(replies[number].events())))

    assert texts == [f"number {number} " for number in range(20)]
    assert broker.completed == [f"number {number}" for number in range(20)]
    assert broker.max_concurrent == {"ada": 1}


def test_queued_messages_run_while_no_engine_slot_is_free(start, broker):
    server = start(**settings_of(broker), MAX_RUNNING="1")
    busy = ConversationBrowser(server, "bob")
    frames = parse_frames(busy.open_stream(busy.begin("/slow 600 one two", agentId="demo")))
    assert next(frame for frame in frames if frame.get("event") == "token")

    replies = [Browser(server).say(f"number {number}") for number in range(3)]

    assert [last_of(reply)["type"] for reply in replies] == ["complete"] * 3
    assert broker.completed == ["number 0", "number 1", "number 2"]


def test_users_do_not_wait_for_each_other(shared_server, broker):
    server = shared_server()
    replies = [Browser(server, f"user-{number}").say(LONG_MESSAGE) for number in range(20)]

    assert {last_of(reply)["type"] for reply in replies} == {"complete"}
    assert len(broker.max_concurrent) == 20


def test_line_separators_in_a_reply_are_kept(shared_server):
    text = "one\u2028two\u2029 three\x85 four"

    events = list(Browser(shared_server()).say(text).events())

    assert text_of(events) == text + " "
    assert events[-1]["response"]["responses"] == [text]


def test_a_message_without_a_slot_of_the_broker_is_retried(start, single):
    with OriginalBroker(word_seconds=0.01, slot_seconds=0.2, lock_seconds=1.0) as broker:
        server = start(single, **settings_of(broker))
        broker.hold_lock("ada", 1.0)

        events = list(Browser(server).say("one two").events())

    assert text_of(events) == "one two "
    assert events[-1]["type"] == "complete"
    assert broker.received == ["one two"]
    assert len(set(broker.opened)) == 1 < len(broker.opened)


def test_a_broker_without_a_slot_for_too_long_is_a_timeout(start, single):
    with OriginalBroker(slot_seconds=0.05) as broker:
        broker.hold_lock("ada", 60.0)
        browser = Browser(start(single, **settings_of(broker), ANSWER_MAX_SECONDS="1"))

        last = last_of(browser.say("one two"))

    assert (last["type"], last["code"]) == ("error", "answer_timeout")


def test_an_endless_reply_is_a_timeout(start, single, broker):
    browser = Browser(start(single, **settings_of(broker), ANSWER_MAX_SECONDS="0.5"))
    endless = " ".join(["word"] * 1000)
    reply, abandoned = browser.say(endless), Browser(browser.url, "bob").say(endless)
    take(abandoned, 3)

    last = last_of(reply)

    assert (last["type"], last["code"]) == ("error", "answer_timeout")
    assert eventually(lambda: broker.given_up == [endless, endless]), "with and without a reader"


def test_a_broker_that_disconnects_during_a_reply_is_one_error(shared_server, broker):
    browser = Browser(shared_server())
    reply = browser.say(" ".join(["word"] * 100))
    tab = browser.follow(reply.message_id)
    take(browser.follow(reply.message_id), 3)

    broker.hang_up()

    for reader in (reply, tab):
        kinds = types_of(take(reader))
        assert kinds[-1] == "error"
        assert kinds.count("error") == 1


def test_a_restarted_broker_gets_messages_without_output_again(shared_server, broker):
    broker.word_seconds = 0.5
    browser = Browser(shared_server())
    reply = browser.say("one two")
    assert eventually(lambda: broker.opened)

    broker.kill()
    broker.word_seconds = 0.01
    broker.restart()

    events = list(reply.events())
    assert (text_of(events), events[-1]["type"]) == ("one two ", "complete")
    assert broker.received == ["one two", "one two"]


def test_a_restarted_broker_does_not_get_messages_with_output_again(shared_server, broker):
    browser = Browser(shared_server())
    reply = browser.say(LONG_MESSAGE)
    take(browser.follow(reply.message_id), 4)

    broker.kill()
    broker.restart()

    assert last_of(reply)["code"] == "upstream_unavailable"
    assert broker.received == [LONG_MESSAGE]


def test_a_reply_lost_by_the_broker_is_read_from_the_engines_history(shared_server, broker):
    broker.stray_streams = 1
    browser = Browser(shared_server())

    events = list(browser.say("one two").events())

    assert events[-1]["type"] == "complete"
    assert events[-1]["response"]["responses"] == ["one two"]
    assert broker.received == ["one two"]


def test_an_earlier_equal_turn_is_not_used_as_the_reply(shared_server, broker):
    browser = Browser(shared_server())
    take(browser.say("yes"))
    broker.stray_streams, broker.stores_history = 1, False

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
def test_openai_clients_are_served_from_the_same_log(shared_server, broker, stream):
    completion = {"model": "default", "messages": [{"role": "user", "content": "one two"}], "stream": stream}

    text = Browser(shared_server()).request("POST", "/v1/chat/completions", completion).read()

    assert b"two" in text
    assert b"finish_reason" in text
    assert (broker.received, len(broker.opened)) == (["one two"], 1)
    assert broker.given_up == []


def test_an_openai_client_that_disconnects_does_not_delay_the_next_message(shared_server, broker):
    browser = Browser(shared_server())
    completion = {"model": "default", "messages": [{"role": "user", "content": LONG_MESSAGE}], "stream": True}
    take(browser.request("POST", "/v1/chat/completions", completion), 2)

    assert last_of(browser.say("next"))["type"] == "complete"
    assert broker.completed == [LONG_MESSAGE, "next"]
    assert broker.given_up == []


def test_a_reply_with_output_of_a_crashed_worker_is_interrupted(start, clean_redis, broker):
    settings = {**settings_of(broker), "REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1"}
    killed, alive = start(**settings), start(**settings)
    reply = Browser(killed).say(" ".join(["word"] * 200))
    seen = take(reply, 4)

    killed.crash()

    last = last_of(Browser(alive).follow(reply.message_id, id_of(seen[-1])))
    assert (last["type"], last["code"]) == ("error", "interrupted")


def test_a_message_without_output_of_a_crashed_worker_is_retried(start, clean_redis, broker):
    broker.lock_seconds = 0.5
    broker.word_seconds = 1.0
    settings = {**settings_of(broker), "REDIS_URL": clean_redis.url, "LEASE_SECONDS": "1"}
    killed, alive = start(**settings), start(**settings)
    reply = Browser(killed).say("one two")
    assert eventually(lambda: broker.opened)

    killed.crash()
    broker.word_seconds = 0.01

    assert last_of(Browser(alive).follow(reply.message_id))["type"] == "complete"


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_a_drain_finishes_replies_without_readers(start, request, broker, shared):
    broker.word_seconds = 0.1
    settings = {"REDIS_URL": request.getfixturevalue("clean_redis").url} if shared else {}
    server = start(**settings_of(broker), **settings, DRAIN_SECONDS="8")
    for number in range(20):
        reply = Browser(server, f"user-{number}").say(LONG_MESSAGE)
        take(reply, 3)
        reply.leave()

    server.kill(signal.SIGTERM)
    assert server.process.wait(15) == 0

    assert broker.completed == [LONG_MESSAGE] * 20
    assert broker.given_up == []
    fresh = start(**settings_of(broker))
    replies = [Browser(fresh, f"user-{number}").say("next") for number in range(20)]
    assert {last_of(reply)["type"] for reply in replies} == {"complete"}


def test_a_message_that_cannot_be_enqueued_gets_json_and_may_be_retried(start, single, broker):
    broker.kill()
    browser = Browser(start(single, **settings_of(broker)))

    refused = post(browser, "one two", client_message_id="once")
    assert (refused.status, refused.json()["code"]) == (503, "upstream_unavailable")

    broker.restart()
    assert last_of(post(browser, "one two", client_message_id="once"))["type"] == "complete"
    assert browser.active() == []


def test_event_ids_of_one_users_replies_do_not_overlap(shared_server, broker):
    browser = Browser(shared_server())
    replies = [browser.say(f"number {number}") for number in range(5)]

    frames = in_parallel(5, lambda number: take(replies[number]))

    ids = [[id_of(frame) for frame in reply if content_of(frame)["type"] != "status"] for reply in frames]
    numbers = [[tuple(map(int, event_id.split("-"))) for event_id in reply] for reply in ids]
    assert all(before[-1] < after[0] for before, after in pairwise(numbers))
