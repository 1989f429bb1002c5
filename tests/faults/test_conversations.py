"""Conversations' replies whose readers are interrupted, disconnect, stop or retry: one call of the model per reply."""

from collections.abc import Iterator
from itertools import chain, repeat
from math import inf
from uuid import uuid4

import pytest

from tests.db.talk import ROOM, ConversationBrowser, parse_frames, tokens
from tests.faults.conversation_readers import Conversation, assert_stored_completely_or_not_at_all
from tests.faults.deployments import deployment
from tests.faults.engine import question
from tests.faults.load import Clients, all_done
from tests.faults.model import Model
from tests.live import Reply, Server, eventually, in_parallel, status_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

DEADLINE = 30.0
WORDS = 12
CONTINUE = "?on_disconnect=continue"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model() as model:
        yield model


@pytest.fixture(scope="module", params=["gunicorn", "flask", "fleet"])
def server(request, tmp_path_factory, model) -> Iterator[Server]:
    redis = request.getfixturevalue("redis") if request.param == "fleet" else None
    with deployment(request.param, tmp_path_factory.mktemp("conversations"), redis, **model.settings) as server:
        yield server


@pytest.fixture
def new_conversation(server, request):
    """`new_conversation(0.1)` creates one whose question gets a reply of WORDS words, 0.1 seconds apart."""

    def make(interval: float = 0.0, delay: float = 0.0, name: str = "") -> Conversation:
        mark = uuid4().hex[:8]
        return Conversation(server, f"user-{mark}", question(f"{name}{mark}", WORDS, interval, delay))

    return make


def read_some(reply: Reply, max_events: float) -> list[dict]:
    """Reads up to `max_events` events, then disconnects."""
    frames: list[dict] = []
    for frame in parse_frames(reply):
        if "event" in frame:
            frames.append(frame)
        if len(frames) >= max_events:
            break
    reply.leave()
    return frames


def read_in_pieces(conversation: Conversation, lengths: Iterator[float]) -> list[dict]:
    """Reads a reply with one connection for each of `lengths`, the number of events to read. Returns its events."""
    frames: list[dict] = []
    for length in lengths:
        after = {"Last_Event_ID": frames[-1]["id"]} if frames else {}
        reply = conversation.open_stream(CONTINUE, **after)
        if reply.status == 204:
            reply.close()
            break
        assert reply.status == 200
        frames += read_some(reply, length)
    return frames


def assert_complete(conversation: Conversation, frames: list[dict], model: Model) -> None:
    [stored] = conversation.replies
    assert [frame["event"] for frame in frames] == ["token"] * WORDS + ["done"]
    assert "".join(tokens(frames)) == stored["content"]
    assert frames[-1]["data"] == {"messageId": stored["id"]}
    assert model.calls[conversation.question] == 1


# Interruptions


def test_a_reply_interrupted_after_any_event_is_complete(new_conversation, model):
    def interrupt(after: int) -> None:
        conversation = new_conversation(interval=0.01)
        assert_complete(conversation, read_in_pieces(conversation, chain([after], repeat(inf))), model)

    in_parallel(WORDS + 1, lambda number: interrupt(number + 1))


def test_a_reply_interrupted_after_every_event_is_complete(new_conversation, model):
    conversation = new_conversation(interval=0.01)

    assert_complete(conversation, read_in_pieces(conversation, repeat(1)), model)


def test_tabs_that_reconnect_receive_the_same_reply(server, new_conversation, model):
    conversation = new_conversation(interval=0.1)
    with Clients(server.port) as clients:
        tabs = [conversation.tab(clients, CONTINUE) for _ in range(8)]
        for number, tab in enumerate(tabs):
            assert clients.wait_for(lambda tab=tab, number=number: len(tab.events) > number, DEADLINE)
            clients.reset(tab)
        tabs.append(conversation.tab(clients))
        assert clients.wait_for(all_done(tabs), DEADLINE)

    assert all(tab.is_complete(conversation.replies) for tab in tabs), [tab.events for tab in tabs]
    assert all(tab.numbered_events == tabs[0].numbered_events for tab in tabs)
    assert model.calls[conversation.question] == 1


# Retries after an end


def test_a_stopped_question_can_be_retried_at_once(server, new_conversation, model):
    conversation = new_conversation(interval=0.2)
    with Clients(server.port) as clients:
        tabs = [conversation.tab(clients) for _ in range(3)]
        assert clients.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        assert status_of(conversation.talk.request("POST", f"{ROOM}/{conversation.id}/stop")) == 202
        assert clients.wait_for(all_done(tabs), DEADLINE)
        assert [(tab.end, tab.events[-1]["messageId"]) for tab in tabs] == [("stopped", None)] * 3
        assert conversation.replies == []

        retry = conversation.tab(clients)
        assert clients.wait_for(lambda: retry.done, DEADLINE)

    assert retry.is_complete(conversation.replies)
    assert model.calls[conversation.question] == 2


def test_a_reloaded_tab_receives_a_complete_reply(server, new_conversation, model):
    """The tab reconnects while its abandoned reply is being stopped."""
    conversations = [new_conversation(interval=0.2) for _ in range(10)]
    with Clients(server.port) as clients:
        for conversation in conversations:
            conversation.tab(clients, disconnect_after_events=3)
        assert clients.wait_for(all_done(clients.streams), DEADLINE)
        tabs = [conversation.tab(clients) for conversation in conversations]
        assert clients.wait_for(all_done(tabs), DEADLINE)

    assert [tab.end for tab in tabs] == ["done"] * len(conversations)
    assert all(tab.is_complete(conversation.replies) for tab, conversation in zip(tabs, conversations, strict=True))


def test_a_failed_question_can_be_retried_at_once(server, new_conversation, model):
    conversation = new_conversation(delay=0.1, name="failing-")
    with Clients(server.port) as clients:
        tabs = [conversation.tab(clients) for _ in range(3)]
        assert clients.wait_for(lambda: any(tab.done for tab in tabs), DEADLINE)
        retry = conversation.tab(clients)
        assert clients.wait_for(all_done([*tabs, retry]), DEADLINE)

    assert "upstream_error" in {tab.end for tab in tabs}
    assert retry.is_complete(conversation.replies)
    assert model.calls[conversation.question] == 2


def test_a_reply_is_stored_if_one_of_its_readers_asked_to_continue(server, new_conversation, model):
    conversation = new_conversation(interval=0.1)
    with Clients(server.port) as clients:
        tabs = [conversation.tab(clients, query) for query in ("", "", CONTINUE, "?on_disconnect=cancel", "")]
        assert clients.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        for tab in tabs:
            clients.disconnect(tab)
        assert eventually(lambda: conversation.replies, DEADLINE)

    assert_stored_completely_or_not_at_all(conversation, tabs, model)
    assert model.calls[conversation.question] == 1


CONVERSATIONS = 40
ROUNDS = 10


@pytest.mark.slow
def test_replies_abandoned_at_random_are_stored_completely_or_not_at_all(server, new_conversation, model):
    """Readers disconnect before, during or after the text; then they retry until every reply is stored."""
    conversations = in_parallel(CONVERSATIONS, lambda _: new_conversation(interval=0.02, delay=0.02))
    with Clients(server.port) as clients:
        tabs = {
            conversation: [conversation.tab(clients, disconnect_after_events=clients.random.randrange(WORDS + 2))]
            for conversation in conversations
        }
        assert clients.wait_for(all_done(clients.streams), DEADLINE)
        initially_missing = missing = without_reply(conversations)
        for _ in range(ROUNDS):
            for conversation in missing:
                tabs[conversation].append(conversation.tab(clients))
            assert clients.wait_for(all_done(clients.streams), DEADLINE)
            missing = without_reply(missing)

    assert 0 < len(initially_missing) < CONVERSATIONS
    assert missing == []
    for conversation in conversations:
        assert_stored_completely_or_not_at_all(conversation, tabs[conversation], model)
        assert model.calls[conversation.question] <= len(tabs[conversation])


def without_reply(conversations: list[Conversation]) -> list[Conversation]:
    replies = in_parallel(len(conversations), lambda number: conversations[number].replies)
    return [conversation for conversation, stored in zip(conversations, replies, strict=True) if not stored]


# Invalid requests


def test_invalid_requests_are_refused(server, new_conversation, model):
    conversation, other = new_conversation(), new_conversation()
    other.talk.headers = conversation.talk.headers
    foreign = ConversationBrowser(server, "eve")
    [question_message] = conversation.talk.stored_messages(conversation.id)
    other_id = ConversationBrowser(server, conversation.user).begin("hello")
    [other_question] = conversation.talk.stored_messages(other_id)
    assert list(parse_frames(conversation.open_stream()))[-1]["event"] == "done"
    [reply] = conversation.replies
    empty = conversation.talk.begin()

    refused = {
        f"{conversation.id}/stream?agentId=nobody": 400,
        f"{conversation.id}/stream?messageId={reply['id']}": 400,
        f"{conversation.id}/stream?messageId=nonsense": 400,
        f"{conversation.id}/stream?on_disconnect=nonsense": 400,
        f"{conversation.id}/stream?regenerate=a&last_event_id=a%20b": 400,
        f"{conversation.id}/stream?messageId={other_question['id']}": 404,
        f"{conversation.id}/stream?messageId={uuid4()}": 404,
        f"{empty}/stream": 400,
        f"{uuid4()}/stream": 404,
        "nonsense/stream": 404,
    }
    assert {path: status_of(conversation.talk.request("GET", f"{ROOM}/{path}")) for path in refused} == refused
    assert status_of(foreign.open_stream(conversation.id)) == 404
    assert status_of(foreign.open_stream(conversation.id, f"?messageId={question_message['id']}")) == 404
    assert status_of(foreign.request("POST", f"{ROOM}/{conversation.id}/stop")) == 404
    assert model.calls[conversation.question] == 1


def test_deleting_a_conversation_ends_its_reply_for_every_reader(server, new_conversation, model):
    conversation = new_conversation(interval=0.2)
    with Clients(server.port) as clients:
        tabs = [conversation.tab(clients, query) for query in ("", CONTINUE)]
        assert clients.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        assert status_of(conversation.talk.request("DELETE", f"{ROOM}/{conversation.id}")) == 204
        assert clients.wait_for(all_done(tabs), DEADLINE)

    assert [tab.end for tab in tabs] == ["stopped"] * 2
    assert status_of(conversation.open_stream(Last_Event_ID=tabs[0].last_id)) == 404
    assert model.calls[conversation.question] == 1


def test_a_question_edited_during_its_reply_gets_another_reply(server, new_conversation, model):
    conversation = new_conversation(interval=0.1)
    edited = question(uuid4().hex, WORDS)
    [question_message] = conversation.talk.stored_messages(conversation.id)
    with Clients(server.port) as clients:
        tab = conversation.tab(clients)
        assert clients.wait_for(lambda: tab.text, DEADLINE)
        conversation.talk.request(
            "PUT", f"{ROOM}/{conversation.id}/messages/{question_message['id']}", {"content": edited}
        ).close()
        assert status_of(conversation.open_stream()) == 409
        assert clients.wait_for(lambda: tab.done, DEADLINE)
        assert tab.is_complete(conversation.replies)

    assert list(parse_frames(conversation.open_stream()))[-1]["event"] == "done"
    assert (model.calls[conversation.question], model.calls[edited]) == (1, 1)
    assert len(conversation.replies) == 2
