"""Conversations' replies under faults of their readers: cut, left, stopped, asked again; one call of the model a reply."""

from collections.abc import Iterator
from itertools import chain, repeat
from math import inf
from uuid import uuid4

import pytest

from tests.db.talk import ROOM, Talk, tokens, told
from tests.faults.engine import question
from tests.faults.houses import house
from tests.faults.load import Crowd, all_over
from tests.faults.model import Model
from tests.faults.tabs import Room, assert_stored_whole_or_not_at_all
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
    with house(request.param, tmp_path_factory.mktemp("conversations"), redis, **model.settings) as server:
        yield server


@pytest.fixture
def room(server, request):
    """`room("0.1")`: a new conversation, whose question the model answers in twelve words, so many seconds apart."""

    def make(apart: float = 0.0, silence: float = 0.0, name: str = "") -> Room:
        mark = uuid4().hex[:8]
        return Room(server, f"user-{mark}", question(f"{name}{mark}", WORDS, apart, silence))

    return make


def some(reply: Reply, most: float) -> list[dict]:
    """The next events; then the line breaks."""
    found: list[dict] = []
    for frame in told(reply):
        if "event" in frame:
            found.append(frame)
        if len(found) >= most:
            break
    reply.leave()
    return found


def read_in_pieces(room: Room, lengths: Iterator[float]) -> list[dict]:
    """A reply's events, read with a connection for each of `lengths`."""
    frames: list[dict] = []
    for length in lengths:
        after = {"Last_Event_ID": frames[-1]["id"]} if frames else {}
        reply = room.hear(CONTINUE, **after)
        if reply.status == 204:
            reply.close()
            break
        assert reply.status == 200
        frames += some(reply, length)
    return frames


def assert_whole(room: Room, frames: list[dict], model: Model) -> None:
    [stored] = room.replies
    assert [frame["event"] for frame in frames] == ["token"] * WORDS + ["done"]
    assert "".join(tokens(frames)) == stored["content"]
    assert frames[-1]["data"] == {"messageId": stored["id"]}
    assert model.asked[room.question] == 1


# Cuts


def test_a_reply_cut_after_any_of_its_events_is_told_whole(room, model):
    def cut(after: int) -> None:
        one = room(apart=0.01)
        assert_whole(one, read_in_pieces(one, chain([after], repeat(inf))), model)

    in_parallel(WORDS + 1, lambda number: cut(number + 1))


def test_a_reply_cut_after_each_of_its_events_is_told_whole(room, model):
    one = room(apart=0.01)

    assert_whole(one, read_in_pieces(one, repeat(1)), model)


def test_tabs_that_break_and_come_back_are_all_told_the_same_reply(server, room, model):
    one = room(apart=0.1)
    with Crowd(server.port) as crowd:
        tabs = [one.tab(crowd, CONTINUE) for _ in range(8)]
        for number, tab in enumerate(tabs):
            assert crowd.wait_for(lambda tab=tab, number=number: len(tab.events) > number, DEADLINE)
            crowd.drop(tab)
        tabs.append(one.tab(crowd))
        assert crowd.wait_for(all_over(tabs), DEADLINE)

    assert all(tab.is_whole(one.replies) for tab in tabs), [tab.events for tab in tabs]
    assert all(tab.said == tabs[0].said for tab in tabs)
    assert model.asked[one.question] == 1


# Ends, and what comes after them


def test_a_stopped_question_is_answered_when_it_is_asked_again_at_once(server, room, model):
    one = room(apart=0.2)
    with Crowd(server.port) as crowd:
        tabs = [one.tab(crowd) for _ in range(3)]
        assert crowd.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        assert status_of(one.talk.request("POST", f"{ROOM}/{one.id}/stop")) == 202
        assert crowd.wait_for(all_over(tabs), DEADLINE)
        assert [(tab.end, tab.events[-1]["messageId"]) for tab in tabs] == [("stopped", None)] * 3
        assert one.replies == []

        again = one.tab(crowd)
        assert crowd.wait_for(lambda: again.over, DEADLINE)

    assert again.is_whole(one.replies)
    assert model.asked[one.question] == 2


def test_a_tab_that_is_reloaded_is_told_a_whole_reply(server, room, model):
    """It leaves and comes at once, while what it left is being stopped."""
    rooms = [room(apart=0.05) for _ in range(10)]
    with Crowd(server.port) as crowd:
        for one in rooms:
            one.tab(crowd, leave_at=3)
        assert crowd.wait_for(all_over(crowd.streams), DEADLINE)
        tabs = [one.tab(crowd) for one in rooms]
        assert crowd.wait_for(all_over(tabs), DEADLINE)

    assert [tab.end for tab in tabs] == ["done"] * len(rooms)
    assert all(tab.is_whole(one.replies) for tab, one in zip(tabs, rooms, strict=True))


def test_a_failed_question_is_answered_when_it_is_asked_again_at_once(server, room, model):
    one = room(silence=0.1, name="failing-")
    with Crowd(server.port) as crowd:
        tabs = [one.tab(crowd) for _ in range(3)]
        assert crowd.wait_for(lambda: any(tab.over for tab in tabs), DEADLINE)
        again = one.tab(crowd)
        assert crowd.wait_for(all_over([*tabs, again]), DEADLINE)

    assert "upstream_error" in {tab.end for tab in tabs}
    assert again.is_whole(one.replies)
    assert model.asked[one.question] == 2


def test_a_reply_that_one_of_its_readers_wants_is_stored_when_all_have_left(server, room, model):
    one = room(apart=0.1)
    with Crowd(server.port) as crowd:
        tabs = [one.tab(crowd, query) for query in ("", "", CONTINUE, "?on_disconnect=cancel", "")]
        assert crowd.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        for tab in tabs:
            crowd.leave(tab)
        assert eventually(lambda: one.replies, DEADLINE)

    assert_stored_whole_or_not_at_all(one, tabs, model)
    assert model.asked[one.question] == 1


ABORTS = 40
ROUNDS = 10


def test_of_replies_that_are_left_at_random_all_is_stored_or_nothing(server, room, model):
    """Before the first word, in the middle, after the last one; then all are asked for again until they are there."""
    rooms = in_parallel(ABORTS, lambda _: room(apart=0.02, silence=0.02))
    with Crowd(server.port) as crowd:
        tabs = {one: [one.tab(crowd, leave_at=crowd.random.randrange(WORDS + 2))] for one in rooms}
        assert crowd.wait_for(all_over(crowd.streams), DEADLINE)
        left = missing = unanswered(rooms)
        for _ in range(ROUNDS):
            for one in missing:
                tabs[one].append(one.tab(crowd))
            assert crowd.wait_for(all_over(crowd.streams), DEADLINE)
            missing = unanswered(missing)

    assert 0 < len(left) < ABORTS
    assert missing == []
    for one in rooms:
        assert_stored_whole_or_not_at_all(one, tabs[one], model)
        assert model.asked[one.question] <= len(tabs[one])


def unanswered(rooms: list[Room]) -> list[Room]:
    replies = in_parallel(len(rooms), lambda number: rooms[number].replies)
    return [one for one, stored in zip(rooms, replies, strict=True) if not stored]


# Bad input


def test_what_cannot_be_answered_is_refused(server, room, model):
    one, other = room(), room()
    other.talk.headers = one.talk.headers
    foreign = Talk(server, "eve")
    [asked] = one.talk.kept(one.id)
    elsewhere = Talk(server, one.user).begin("hello")
    [there] = one.talk.kept(elsewhere)
    assert list(told(one.hear()))[-1]["event"] == "done"
    [reply] = one.replies
    empty = one.talk.begin()

    refused = {
        f"{one.id}/stream?agentId=nobody": 400,
        f"{one.id}/stream?messageId={reply['id']}": 400,
        f"{one.id}/stream?messageId=nonsense": 400,
        f"{one.id}/stream?on_disconnect=nonsense": 400,
        f"{one.id}/stream?regenerate=a&last_event_id=a%20b": 400,
        f"{one.id}/stream?messageId={there['id']}": 404,
        f"{one.id}/stream?messageId={uuid4()}": 404,
        f"{empty}/stream": 400,
        f"{uuid4()}/stream": 404,
        "nonsense/stream": 404,
    }
    assert {path: status_of(one.talk.request("GET", f"{ROOM}/{path}")) for path in refused} == refused
    assert status_of(foreign.hear(one.id)) == 404
    assert status_of(foreign.hear(one.id, f"?messageId={asked['id']}")) == 404
    assert status_of(foreign.request("POST", f"{ROOM}/{one.id}/stop")) == 404
    assert model.asked[one.question] == 1


def test_a_conversation_that_is_deleted_in_mid_reply_ends_it_for_every_reader(server, room, model):
    one = room(apart=0.2)
    with Crowd(server.port) as crowd:
        tabs = [one.tab(crowd, query) for query in ("", CONTINUE)]
        assert crowd.wait_for(lambda: all(tab.text for tab in tabs), DEADLINE)
        assert status_of(one.talk.request("DELETE", f"{ROOM}/{one.id}")) == 204
        assert crowd.wait_for(all_over(tabs), DEADLINE)

    assert [tab.end for tab in tabs] == ["stopped"] * 2
    assert status_of(one.hear(Last_Event_ID=tabs[0].last_id)) == 404
    assert model.asked[one.question] == 1


def test_a_question_that_is_edited_in_mid_reply_is_answered_once_more(server, room, model):
    one = room(apart=0.1)
    edited = question(uuid4().hex, WORDS)
    [asked] = one.talk.kept(one.id)
    with Crowd(server.port) as crowd:
        tab = one.tab(crowd)
        assert crowd.wait_for(lambda: tab.text, DEADLINE)
        one.talk.request("PUT", f"{ROOM}/{one.id}/messages/{asked['id']}", {"content": edited}).close()
        assert status_of(one.hear()) == 409
        assert crowd.wait_for(lambda: tab.over, DEADLINE)
        assert tab.is_whole(one.replies)

    assert list(told(one.hear()))[-1]["event"] == "done"
    assert (model.asked[one.question], model.asked[edited]) == (1, 1)
    assert len(one.replies) == 2
