"""Replies on live servers, kept in each kind of database: readers that leave, come back, or are two; heartbeats, drains."""

import json
import signal
import threading
import time
from contextlib import closing
from functools import partial

import pytest

from tests.agents.openai_server import BEGIN, DONE, HEAD, piece, refusal, settings_of, words
from tests.conversations.talk import ROOM, Talk, tokens, told
from tests.live import DEADLINE, eventually, in_parallel, status_of
from tests.wire_server import HANG, LAST_CHUNK, WireServer, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

WORDS = [f"word-{number} " for number in range(30)]
LONG = "".join(WORDS).strip()


@pytest.fixture
def serve(start, tmp_path):
    """`serve(SETTING="…")`: a server on this test's SQLite file; several share it."""
    return partial(start, DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")


@pytest.fixture
def serve_each(start, url):
    """The same, on each kind of database."""
    return partial(start, DATABASE_URL=url)


def test_a_reply_is_told_in_order_and_is_the_one_that_is_kept(serve_each):
    ada = Talk(serve_each())
    conversation = ada.begin(LONG)

    with ada.hear(conversation) as reply:
        headers, frames = reply.headers, list(told(reply))

    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["X-Request-ID"]
    assert frames[0] == {"comment": "ok"}
    assert "".join(tokens(frames)) == LONG
    [kept] = ada.replies(conversation)
    assert frames[-1] == {"event": "done", "data": {"messageId": kept["id"]}, "id": kept["id"]}
    assert kept["content"] == LONG
    assert status_of(ada.hear(conversation)) == 204


def test_a_stream_is_open_before_its_agent_has_answered_and_its_heart_beats(serve, kind):
    with WireServer([HANG]) as model:
        ada = Talk(serve(kind, HEARTBEAT_SECONDS="0.1", **settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as reply:
            frames = told(reply)
            assert [next(frames) for _ in range(5)] == [{"comment": "ok"}, *[{"comment": "keepalive"}] * 4]
        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)


ABORTS = {
    "before the model answered": ([HANG], 0),
    "before the first token": ([HEAD, BEGIN, HANG], 0),
    "in the middle": ([HEAD, BEGIN, *words("one ", "two "), HANG], 2),
    "after the last": ([HEAD, BEGIN, *words("one ", "two"), piece({}, "stop"), HANG], 2),
}


@pytest.mark.parametrize(("answer", "count"), ABORTS.values(), ids=ABORTS.keys())
def test_a_reader_that_leaves_stops_the_agent_and_nothing_is_kept(serve, answer, count):
    leave_after(count, answer, serve)


def test_so_it_is_on_threads(serve):
    leave_after(2, ABORTS["in the middle"][0], partial(serve, "flask"))


def test_so_it_is_on_each_database(serve_each):
    leave_after(2, ABORTS["in the middle"][0], serve_each)


def leave_after(count, answer, serve):
    with WireServer(answer) as model:
        ada = Talk(serve(**settings_of(model)))
        conversation = ada.begin("hello")
        reply = ada.hear(conversation, "?agentId=openai")
        frames = told(reply)
        assert next(frames) == {"comment": "ok"}
        assert model.wait_for(lambda: model.requests, DEADLINE)
        said = [next(frames) for _ in range(count)]
        reply.leave()

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert len(tokens(said)) == count
    with eventually(lambda: unless_busy(ada.hear(conversation)), DEADLINE) as reply:
        assert "".join(tokens(list(told(reply)))) == "hello"
    assert [message["content"] for message in ada.replies(conversation)] == ["hello"]


def unless_busy(reply):
    if reply.status == 409:
        reply.close()
        return None
    return reply


def test_a_reader_that_leaves_as_the_agent_ends_gets_nothing_kept(serve):
    go_on = threading.Event()
    with WireServer([HEAD, *words("one"), go_on, 0.01, piece({}, "stop"), DONE, LAST_CHUNK]) as model:
        server = serve(**settings_of(model))
        ada = Talk(server)
        conversation = ada.begin("hello", agentId="openai")
        reply = ada.hear(conversation)
        frames = told(reply)
        assert tokens([next(frames), next(frames)]) == ["one"]
        reply.leave()
        go_on.set()

        assert eventually(lambda: server.ended, DEADLINE) == ["aborted"]
    assert ada.replies(conversation) == []


def test_a_reader_that_leaves_the_brokers_agent_stops_the_brokers_answer(serve):
    ada = Talk(serve())
    conversation = ada.begin("/slow 3600 one two", agentId="broker")

    reply = ada.hear(conversation)
    frames = told(reply)
    assert tokens([next(frames), next(frames)]) == ["one "]
    assert len(ada.active()) == 1
    reply.leave()

    assert eventually(lambda: not ada.active(), DEADLINE)
    assert ada.replies(conversation) == []


def test_a_second_stream_in_a_conversation_is_refused_even_by_another_process(serve_each):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        one, two = (Talk(serve_each(**settings_of(model))) for _ in range(2))
        conversation = one.begin("hello", agentId="openai")
        with one.hear(conversation) as reply:
            frames = told(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            for other in (one, two):
                refused = other.hear(conversation)
                assert (refused.status, refused.json()["code"]) == (409, "busy")
            elsewhere = two.begin("elsewhere", agentId="echo")
            assert len(list(told(two.hear(elsewhere)))) == 3

        assert eventually(lambda: status_of(two.hear(conversation)) == 200, DEADLINE)


def test_of_many_streams_at_once_one_replies(serve_each):
    one, two = (Talk(serve_each(ECHO_WORD_SECONDS="0.1", MAX_STREAMS_PER_USER="50")) for _ in range(2))
    conversation = one.begin("one two three four five six seven eight nine ten")

    def hear(number):
        with (one, two)[number % 2].hear(conversation) as reply:
            reply.read()
            return reply.status

    statuses = in_parallel(12, hear)

    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 204, 409}
    assert len(one.replies(conversation)) == 1


def test_a_process_that_crashed_does_not_lock_a_conversation_for_ever(serve_each):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        settings = settings_of(model) | {"LEASE_SECONDS": "1", "MESSAGES_PER_MINUTE": "9999"}
        crashing, other = serve_each(**settings), Talk(serve_each(**settings))
        conversation = other.begin("hello")
        reply = Talk(crashing).hear(conversation, "?agentId=openai")
        assert next(told(reply)) == {"comment": "ok"}
        crashing.crash()
        reply.close()

        with eventually(lambda: unless_busy(other.hear(conversation)), DEADLINE) as reply:
            assert list(told(reply))[-1]["event"] == "done"
    assert [message["content"] for message in other.replies(conversation)] == ["hello"]


def test_a_claim_holds_for_as_long_as_its_stream_runs(serve):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        settings = settings_of(model) | {"LEASE_SECONDS": "3", "MESSAGES_PER_MINUTE": "9999"}
        ada = Talk(serve(**settings))
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as reply:
            assert next(told(reply)) == {"comment": "ok"}
            until = time.monotonic() + 4
            while time.monotonic() < until:
                assert status_of(ada.hear(conversation)) == 409
                time.sleep(0.1)


def test_a_conversation_that_is_deleted_ends_its_stream(serve_each):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        one, two = (Talk(serve_each(LEASE_SECONDS="1", **settings_of(model))) for _ in range(2))
        conversation = one.begin("hello", agentId="openai")
        with one.hear(conversation) as reply:
            frames = told(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            assert status_of(two.request("DELETE", f"{ROOM}/{conversation}")) == 204
            last = list(frames)[-1]

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert (last["event"], last["data"]["code"]) == ("failure", "interrupted")


class EventSource:
    """As the standard says: it comes back after every end with what it saw last, until it is told not to."""

    def __init__(self, talk: Talk, conversation: str, reconnect_seconds: float) -> None:
        self._talk, self._conversation, self._pause = talk, conversation, reconnect_seconds
        self.statuses: list[int] = []
        self.frames: list[dict] = []

    def run(self, seconds: float) -> None:
        """Until it is told to stop, or held back, or so many seconds have passed."""
        until, last_id = time.monotonic() + seconds, ""
        while time.monotonic() < until and "retry" not in (self.frames or [{}])[-1]:
            headers = {"Last_Event_ID": last_id} if last_id else {}
            with closing(self._talk.hear(self._conversation, Accept="text/event-stream", **headers)) as reply:
                self.statuses.append(reply.status)
                if reply.status != 200:
                    return
                for frame in told(reply):
                    self.frames.append(frame)
                    last_id = frame.get("id", last_id)
            time.sleep(self._pause)


def test_an_event_source_left_running_makes_exactly_one_reply(serve):
    ada = Talk(serve())
    conversation = ada.begin("hello there")
    source = EventSource(ada, conversation, reconnect_seconds=0.5)

    source.run(10)

    assert source.statuses == [200, 204]
    assert tokens(source.frames) == ["hello ", "there"]
    assert len(ada.replies(conversation)) == 1


def test_an_event_source_whose_agent_fails_is_held_back(serve):
    with WireServer([refusal("500 Internal Server Error")]) as model:
        ada = Talk(serve(MESSAGES_PER_MINUTE="3", **settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        source = EventSource(ada, conversation, reconnect_seconds=0.1)

        source.run(20)

    assert len(model.requests) == 3
    assert set(source.statuses) == {200}
    assert ada.replies(conversation) == []


def test_a_drain_is_told_and_another_process_replies(serve):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        server, other = serve(DRAIN_SECONDS="2", **settings_of(model)), Talk(serve())
        conversation = other.begin("hello")
        quick = other.begin("quick")
        with Talk(server).hear(conversation, "?agentId=openai") as reply, Talk(server).hear(quick) as finished:
            frames = told(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            server.kill(signal.SIGTERM)
            assert list(told(finished))[-1]["event"] == "done"
            last = list(frames)[-1]
        assert server.process.wait(30) == 0

    assert (last["event"], last["data"]["code"]) == ("failure", "server_restarting")
    assert other.replies(conversation) == []
    with eventually(lambda: unless_busy(other.hear(conversation)), DEADLINE) as reply:
        assert list(told(reply))[-1]["event"] == "done"


def test_streams_are_bounded_like_all_others(serve):
    with WireServer([HEAD, HANG]) as model:
        ada = Talk(serve(MAX_STREAMS_PER_USER="1", **settings_of(model)))
        conversation, other = ada.begin("hello", agentId="openai"), ada.begin("hello")
        with ada.hear(conversation) as reply:
            assert next(told(reply)) == {"comment": "ok"}
            refused = ada.hear(other)
            assert (refused.status, refused.json()["code"]) == (429, "too_many_requests")
        assert eventually(lambda: status_of(ada.hear(other)) == 200, DEADLINE)


def test_an_answer_that_takes_too_long_is_ended(serve, kind):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        ada = Talk(serve(kind, ANSWER_MAX_SECONDS="0.5", **settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as reply:
            frames = list(told(reply))

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert (frames[-1]["event"], frames[-1]["data"]["code"]) == ("failure", "answer_timeout")
    assert ada.replies(conversation) == []


def test_what_is_kept_is_there_after_a_restart(serve_each):
    first = serve_each()
    conversation = Talk(first).begin("hello", title="Kept")
    assert list(told(Talk(first).hear(conversation)))[-1]["event"] == "done"
    first.crash()

    again = Talk(serve_each())

    assert [message["content"] for message in again.kept(conversation)] == ["hello", "hello"]
    assert json.loads(again.request("GET", ROOM).read())["conversations"][0]["title"] == "Kept"


def test_an_unchunked_model_is_read_as_it_comes(serve):
    say_more = threading.Event()
    answer = [
        stream_head(chunked=False),
        b'data: {"choices":[{"delta":{"content":"one "}}]}\n\n',
        say_more,
        b"data: [DONE]\n\n",
    ]
    with WireServer(answer) as model:
        ada = Talk(serve(**settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as reply:
            frames = told(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            say_more.set()
            assert next(frames)["event"] == "done"
