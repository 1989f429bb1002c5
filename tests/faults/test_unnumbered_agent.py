"""The agent `broker` with a broker whose events have no ids: it, too, enqueues one message per user at a time."""

import threading
from collections.abc import Iterator

import pytest

from tests.adopted import settings_of
from tests.db.talk import ConversationBrowser, parse_frames
from tests.faults.deployments import deployment
from tests.live import DEADLINE, Server, eventually, last_of, status_of
from tests.original_broker import OriginalBroker

pytestmark = pytest.mark.live

LONG = "one two three four five six seven eight"


@pytest.fixture(scope="module")
def gate() -> threading.Event:
    """Until it is set, replies stop after their first word."""
    return threading.Event()


@pytest.fixture(scope="module")
def broker(gate) -> Iterator[OriginalBroker]:
    def reply(text: str) -> Iterator[str]:
        for word in text.split(" "):
            yield word + " "
            gate.wait(DEADLINE)

    with OriginalBroker(reply=reply) as broker:
        yield broker


@pytest.fixture(scope="module")
def server(kind, broker, tmp_path_factory, request) -> Iterator[Server]:
    redis = request.getfixturevalue("redis") if kind == "fleet" else None
    with deployment(kind, tmp_path_factory.mktemp(kind), redis, **settings_of(broker), ENGINE_BASE_URL=broker.url) as server:
        yield server


@pytest.fixture
def browser(server, broker, gate, user) -> Iterator[ConversationBrowser]:
    broker.reset()
    gate.clear()
    yield ConversationBrowser(server, user)
    gate.set()


def started_reply(browser: ConversationBrowser) -> str:
    """Returns a conversation whose reply has started."""
    conversation = browser.begin(LONG, agentId="broker")
    assert next(
        frame
        for frame in parse_frames(browser.open_stream(conversation, "?on_disconnect=continue"))
        if frame.get("event") == "token"
    )
    return conversation


def stop(browser: ConversationBrowser, conversation: str) -> None:
    assert status_of(browser.request("POST", f"/api/conversations/{conversation}/stop")) == 202


def test_after_a_stopped_reply_the_next_message_waits_for_the_broker(browser, broker, gate, user):
    stop(browser, started_reply(browser))

    reply = browser.say("next")

    assert broker.completed == []
    gate.set()
    assert last_of(reply)["type"] == "complete"
    assert broker.completed == [LONG, "next"]
    assert broker.max_concurrent == {user: 1}
    assert eventually(lambda: browser.active() == [])


def test_a_stopped_reply_ends_at_once(browser, broker):
    conversation = browser.begin(LONG, agentId="broker")
    frames = parse_frames(browser.open_stream(conversation))
    assert next(frame for frame in frames if frame.get("event") == "token")

    stop(browser, conversation)

    assert [frame["event"] for frame in frames if "event" in frame][-1] == "stopped"
    assert broker.completed == []


def test_other_agents_of_the_user_do_not_wait_for_the_broker(browser, broker):
    stop(browser, started_reply(browser))
    other = browser.begin("hello", agentId="echo")

    assert [frame["event"] for frame in parse_frames(browser.open_stream(other)) if "event" in frame][-1] == "done"
    assert broker.completed == []


def test_replies_of_the_agent_follow_each_other(browser, broker, gate, user):
    gate.set()
    for text in ("one", "two"):
        conversation = browser.begin(text, agentId="broker")
        assert [frame["event"] for frame in parse_frames(browser.open_stream(conversation)) if "event" in frame][-1] == "done"
    assert last_of(browser.say("three"))["type"] == "complete"

    assert broker.completed == ["one", "two", "three"]
    assert broker.max_concurrent == {user: 1}
