"""Replies on live servers, stored in each kind of database: readers that leave, come back, or are several; drains."""

import json
import signal
import threading
import time
from contextlib import closing
from functools import partial
from itertools import islice

import pytest

from tests.db.conftest import KINDS
from tests.db.talk import ROOM, Talk, tokens, told
from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, piece, refusal, settings_of, words
from tests.live import DEADLINE, eventually, in_parallel, status_of
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

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


@pytest.fixture(scope="module", params=KINDS)
def shared_url(request, tmp_path_factory):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('shared')}/chat.db"
    return request.getfixturevalue("postgres").url()


@pytest.fixture
def share_each(share, shared_url):
    """The same, of servers that the tests share."""
    return partial(share, DATABASE_URL=shared_url)


def test_a_reply_is_told_in_order_and_is_the_one_that_is_kept(share_each, user):
    ada = Talk(share_each(), user)
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
    assert (frames[-1]["event"], frames[-1]["data"]) == ("done", {"messageId": kept["id"]})
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
def test_a_reader_that_leaves_stops_the_agent_and_nothing_is_kept(share, port, user, answer, count):
    leave_after(count, answer, share, port, user)


def test_a_reader_that_leaves_stops_the_agent_on_threads_too(share, port, user):
    leave_after(2, ABORTS["in the middle"][0], partial(share, "flask"), port, user)


def test_a_reader_that_leaves_stops_the_agent_on_each_database(share_each, port, user):
    leave_after(2, ABORTS["in the middle"][0], share_each, port, user)


def leave_after(count, answer, serve, port, user):
    with WireServer(answer, port=port) as model:
        ada = Talk(serve(**settings_of(model)), user)
        conversation = ada.begin("hello")
        reply = ada.hear(conversation, "?agentId=openai")
        frames = told(reply)
        assert next(frames) == {"comment": "ok"}
        assert model.wait_for(lambda: model.requests, DEADLINE)
        said = [next(frames) for _ in range(count)]
        reply.leave()

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert len(tokens(said)) == count
    with eventually(lambda: if_it_is(ada, conversation, "hello"), DEADLINE):
        assert [message["content"] for message in ada.replies(conversation)] == ["hello"]


def if_it_is(talk, conversation, text):
    """A reply that says `text`: until the run before has ended, its tokens are told."""
    reply = talk.hear(conversation)
    return reply if reply.status == 200 and "".join(tokens(list(told(reply)))) == text else reply.close()


def test_a_reader_that_leaves_as_the_agent_ends_gets_nothing_stored_or_all_of_it(serve):
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

        assert eventually(lambda: server.ended, DEADLINE)[0] in {"aborted", "complete"}
        assert eventually(lambda: any("was answered" in line["message"] for line in server.log_lines), DEADLINE)
    assert [reply["content"] for reply in ada.replies(conversation)] in ([], ["one"])


def test_a_reader_that_leaves_the_agent_broker_stops_the_engine_behind_it(serve):
    with WireServer([stream_head(), *progress("one ", "two "), HANG]) as engine:
        ada = Talk(serve(ENGINE_BASE_URL=engine.url))
        conversation = ada.begin("hello", agentId="broker")
        reply = ada.hear(conversation)
        frames = told(reply)
        assert tokens([next(frames), next(frames)]) == ["one "]
        reply.leave()

        assert engine.wait_for(lambda: engine.hung_up == 1, DEADLINE)
    assert ada.replies(conversation) == []


def progress(*texts):
    return [chunk(b"data: " + json.dumps({"type": "progress", "text": text}).encode() + b"\n\n") for text in texts]


@pytest.fixture
def model(port):
    """Says a word, and the rest when it is told to."""
    go_on = threading.Event()
    with WireServer([HEAD, *words("one "), go_on, *words("two"), piece({}, "stop"), DONE, LAST_CHUNK], port=port) as server:
        server.go_on = go_on
        yield server
        go_on.set()


def test_several_readers_follow_one_reply_and_the_agent_is_asked_once(share_each, user, model):
    ada = Talk(share_each(**settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    with ada.hear(conversation) as first, ada.hear(conversation) as second:
        one, two = told(first), told(second)
        assert tokens([next(one), next(one)]) == tokens([next(two), next(two)]) == ["one "]
        model.go_on.set()
        rest = list(one)
        assert list(two) == rest

    assert [frame["event"] for frame in rest] == ["token", "done"]
    assert len(model.requests) == 1
    assert len(ada.replies(conversation)) == 1


def test_a_reader_is_free_to_come_back_while_another_one_reads(share, kind, user, model):
    ada = Talk(share(kind, **settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    with ada.hear(conversation) as stays:
        staying = told(stays)
        assert next(staying) == {"comment": "ok"}
        leaver = ada.hear(conversation)
        seen = list(islice(told(leaver), 2))
        leaver.leave()
        with ada.hear(conversation, Last_Event_ID=seen[-1]["id"]) as back:
            model.go_on.set()
            assert tokens(list(told(back))) == ["two"]
        assert tokens(list(staying)) == ["one ", "two"]
    assert len(model.requests) == 1


def test_a_reply_goes_on_without_readers_where_one_of_them_asked_for_that(share, kind, user, model):
    ada = Talk(share(kind, **settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    readers = [ada.hear(conversation, query) for query in ("", "?on_disconnect=continue", "?on_disconnect=cancel")]
    for reader in readers:
        assert next(told(reader)) == {"comment": "ok"}
    for reader in readers:
        reader.leave()
    model.go_on.set()

    assert eventually(lambda: [reply["content"] for reply in ada.replies(conversation)], DEADLINE) == ["one two"]
    assert len(model.requests) == 1


def test_a_setting_says_what_becomes_of_replies_whose_readers_have_left(serve, model):
    ada = Talk(serve(CONVERSATION_ON_DISCONNECT="continue", **settings_of(model)))
    conversation = ada.begin("hello", agentId="openai")
    reader = ada.hear(conversation)
    assert next(told(reader)) == {"comment": "ok"}
    reader.leave()
    model.go_on.set()

    assert eventually(lambda: [reply["content"] for reply in ada.replies(conversation)], DEADLINE) == ["one two"]


@pytest.mark.parametrize(("kept", "contents"), [("0", []), ("1", ["one "])])
def test_a_stop_is_told_to_every_reader_and_may_keep_what_was_said(serve_each, kept, contents):
    with WireServer([HEAD, *words("one "), HANG]) as server:
        ada = Talk(serve_each(KEEP_STOPPED=kept, **settings_of(server)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as first, ada.hear(conversation) as second:
            readers = told(first), told(second)
            assert all(tokens([next(frames), next(frames)]) == ["one "] for frames in readers)
            assert status_of(ada.request("POST", f"{ROOM}/{conversation}/stop")) == 202
            last = [list(frames) for frames in readers]
        assert server.wait_for(lambda: server.hung_up == 1, DEADLINE)

    [stored] = ada.replies(conversation) or [None]
    assert last[0] == last[1]
    assert [frame["event"] for frame in last[0]] == ["stopped"]
    assert last[0][0]["data"] == {"messageId": stored and stored["id"]}
    assert [message["content"] for message in ada.replies(conversation)] == contents
    assert status_of(ada.hear(conversation, Last_Event_ID=last[0][0]["id"])) == 204
    with ada.hear(conversation, "?agentId=echo") as again:
        assert again.status == (204 if contents else 200)


def test_another_reply_in_a_conversation_is_refused_while_one_is_written(share_each, port, user):
    with WireServer([HEAD, *words("one "), HANG], port=port) as model:
        ada = Talk(share_each(**settings_of(model)), user)
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as reply:
            frames = told(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            later = ada.tell(conversation, "more")
            for query in ("?regenerate=again", f"?messageId={later}", ""):
                refused = ada.hear(conversation, query)
                assert (refused.status, refused.json()["code"]) == (409, "busy")
            elsewhere = ada.begin("elsewhere", agentId="echo")
            assert len(list(told(ada.hear(elsewhere)))) == 3

        assert eventually(lambda: status_of(ada.hear(conversation, "?agentId=echo")) == 200, DEADLINE)


def test_of_many_readers_at_once_each_is_told_the_one_reply(serve_each):
    ada = Talk(serve_each(ECHO_WORD_SECONDS="0.05", MAX_STREAMS_PER_USER="50"))
    conversation = ada.begin("one two three four five six seven eight nine ten")

    def hear(_):
        with ada.hear(conversation) as reply:
            return reply.status, tuple(tokens(list(told(reply)))) if reply.status == 200 else ()

    heard = set(in_parallel(12, hear))

    assert (200, ("one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight ", "nine ", "ten")) in heard
    assert {status for status, _ in heard} <= {200, 204}
    assert len({text for status, text in heard if status == 200}) == 1
    assert len(ada.replies(conversation)) == 1


def test_a_process_that_crashed_does_not_lock_a_conversation_for_ever(serve_each):
    with WireServer([HEAD, *words("one "), HANG]) as model:
        settings = settings_of(model) | {"LEASE_SECONDS": "1", "MESSAGES_PER_MINUTE": "9999"}
        crashing, other = serve_each(**settings), Talk(serve_each(**settings))
        conversation = other.begin("hello")
        reply = Talk(crashing).hear(conversation, "?agentId=openai")
        assert next(told(reply)) == {"comment": "ok"}
        crashing.crash()
        reply.close()

        with other.hear(conversation) as reply:
            assert list(told(reply))[-1]["event"] == "done"
    assert [message["content"] for message in other.replies(conversation)] == ["hello"]


def test_a_conversation_that_is_deleted_ends_its_stream(share_each, port, user):
    with WireServer([HEAD, *words("one "), HANG], port=port) as model:
        ada = Talk(share_each(**settings_of(model)), user)
        conversation = ada.begin("hello", agentId="openai")
        with ada.hear(conversation) as reply:
            frames = told(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            assert status_of(ada.request("DELETE", f"{ROOM}/{conversation}")) == 204
            last = list(frames)[-1]

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert (last["event"], last["data"]) == ("stopped", {"messageId": None})


def test_an_edit_in_the_middle_of_a_reply_asks_for_another(share_each, user, model):
    ada = Talk(share_each(**settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    question = ada.kept(conversation)[0]["id"]
    with ada.hear(conversation) as reply:
        frames = told(reply)
        assert tokens([next(frames), next(frames)]) == ["one "]
        ada.request("PUT", f"{ROOM}/{conversation}/messages/{question}", {"content": "edited"}).close()
        assert status_of(ada.hear(conversation)) == 409
        model.go_on.set()
        assert list(frames)[-1]["event"] == "done"

    assert list(told(ada.hear(conversation, "?agentId=echo")))[-1]["event"] == "done"
    assert [message["content"] for message in ada.replies(conversation)] == ["one two", "edited"]


class EventSource:
    """As the standard says: it comes back after every end with what it saw last, until it is told not to."""

    def __init__(self, talk: Talk, conversation: str, reconnect_seconds: float) -> None:
        self._talk, self._conversation, self._pause = talk, conversation, reconnect_seconds
        self.statuses: list[int] = []
        self.frames: list[dict] = []

    def run(self, seconds: float) -> None:
        """Until it is told to stop, or held back, or so many seconds have passed."""
        deadline, last_id = time.monotonic() + seconds, ""
        while time.monotonic() < deadline and "retry" not in (self.frames or [{}])[-1]:
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


def test_an_event_source_whose_agent_fails_asks_once(serve):
    with WireServer([refusal("500 Internal Server Error")]) as model:
        ada = Talk(serve(**settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        source = EventSource(ada, conversation, reconnect_seconds=0.1)

        source.run(20)

    assert len(model.requests) == 1
    assert source.statuses == [200, 204]
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
    with other.hear(conversation) as reply:
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
