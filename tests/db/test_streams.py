"""Replies in conversations on live servers: disconnects, resumes, several readers, stops, drains and crashes."""

import json
import signal
import threading
import time
from contextlib import closing
from functools import partial
from itertools import islice

import pytest

from tests.db.conftest import KINDS
from tests.db.talk import ROOM, ConversationBrowser, parse_frames, tokens
from tests.engine.agents.openai_server import BEGIN, DONE, HEAD, error_reply, piece, settings_of, text_deltas
from tests.live import DEADLINE, eventually, in_parallel, status_of
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, stream_head

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

WORDS = [f"word-{number} " for number in range(30)]
LONG = "".join(WORDS).strip()


@pytest.fixture
def serve(start, tmp_path):
    """`serve(SETTING="…")` starts a server. All servers of a test share a SQLite file."""
    return partial(start, DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")


@pytest.fixture
def serve_each(start, url):
    """Like `serve`, on SQLite and on PostgreSQL."""
    return partial(start, DATABASE_URL=url)


@pytest.fixture(scope="module", params=KINDS)
def shared_url(request, tmp_path_factory):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('shared')}/chat.db"
    return request.getfixturevalue("postgres").url()


@pytest.fixture
def share_each(share, shared_url):
    """Like `serve_each`, but tests share the servers."""
    return partial(share, DATABASE_URL=shared_url)


def test_the_streamed_reply_is_the_stored_one(share_each, user):
    ada = ConversationBrowser(share_each(), user)
    conversation = ada.begin(LONG)

    with ada.open_stream(conversation) as reply:
        headers, frames = reply.headers, list(parse_frames(reply))

    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["X-Request-ID"]
    assert frames[0] == {"comment": "ok"}
    assert "".join(tokens(frames)) == LONG
    [stored] = ada.replies(conversation)
    assert (frames[-1]["event"], frames[-1]["data"]) == ("done", {"messageId": stored["id"]})
    assert stored["content"] == LONG
    assert status_of(ada.open_stream(conversation)) == 204


def test_heartbeats_are_sent_before_the_agent_replies(serve, kind):
    with WireServer([HANG]) as model:
        ada = ConversationBrowser(serve(kind, HEARTBEAT_SECONDS="0.1", **settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.open_stream(conversation) as reply:
            frames = parse_frames(reply)
            assert [next(frames) for _ in range(5)] == [{"comment": "ok"}, *[{"comment": "keepalive"}] * 4]
        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)


ABORTS = {
    "before the model answered": ([HANG], 0),
    "before the first token": ([HEAD, BEGIN, HANG], 0),
    "in the middle": ([HEAD, BEGIN, *text_deltas("one ", "two "), HANG], 2),
    "after the last": ([HEAD, BEGIN, *text_deltas("one ", "two"), piece({}, "stop"), HANG], 2),
}


@pytest.mark.parametrize(("steps", "count"), ABORTS.values(), ids=ABORTS.keys())
def test_a_disconnect_stops_the_agent_and_nothing_is_stored(share, port, user, steps, count):
    disconnect_after(count, steps, share, port, user)


def test_a_disconnect_stops_the_agent_under_threads(share, port, user):
    disconnect_after(2, ABORTS["in the middle"][0], partial(share, "flask"), port, user)


def test_a_disconnect_stops_the_agent_on_each_database(share_each, port, user):
    disconnect_after(2, ABORTS["in the middle"][0], share_each, port, user)


def disconnect_after(count, steps, serve, port, user):
    with WireServer(steps, port=port) as model:
        ada = ConversationBrowser(serve(**settings_of(model)), user)
        conversation = ada.begin("hello")
        reply = ada.open_stream(conversation, "?agentId=openai")
        frames = parse_frames(reply)
        assert next(frames) == {"comment": "ok"}
        assert model.wait_for(lambda: model.requests, DEADLINE)
        received = [next(frames) for _ in range(count)]
        reply.leave()

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert len(tokens(received)) == count
    with eventually(lambda: reply_with_text(ada, conversation, "hello"), DEADLINE):
        assert [message["content"] for message in ada.replies(conversation)] == ["hello"]


def reply_with_text(talk, conversation, text):
    """Opens a stream; returns it if its text is `text`. While the previous run has not ended, the stream is that run's."""
    reply = talk.open_stream(conversation)
    return reply if reply.status == 200 and "".join(tokens(list(parse_frames(reply)))) == text else reply.close()


def test_a_disconnect_at_the_end_stores_the_complete_reply_or_nothing(serve):
    resume = threading.Event()
    with WireServer([HEAD, *text_deltas("one"), resume, 0.01, piece({}, "stop"), DONE, LAST_CHUNK]) as model:
        server = serve(**settings_of(model))
        ada = ConversationBrowser(server)
        conversation = ada.begin("hello", agentId="openai")
        reply = ada.open_stream(conversation)
        frames = parse_frames(reply)
        assert tokens([next(frames), next(frames)]) == ["one"]
        reply.leave()
        resume.set()

        assert eventually(lambda: server.ended, DEADLINE)[0] in {"aborted", "complete"}
        assert eventually(lambda: any("was answered" in line["message"] for line in server.log_lines), DEADLINE)
    assert [reply["content"] for reply in ada.replies(conversation)] in ([], ["one"])


def test_a_disconnect_stops_the_engine_of_the_broker_agent(serve):
    with WireServer([stream_head(), *progress("one ", "two "), HANG]) as engine:
        ada = ConversationBrowser(serve(ENGINE_BASE_URL=engine.url))
        conversation = ada.begin("hello", agentId="broker")
        reply = ada.open_stream(conversation)
        frames = parse_frames(reply)
        assert tokens([next(frames), next(frames)]) == ["one "]
        reply.leave()

        assert engine.wait_for(lambda: engine.hung_up == 1, DEADLINE)
    assert ada.replies(conversation) == []


def progress(*texts):
    return [chunk(b"data: " + json.dumps({"type": "progress", "text": text}).encode() + b"\n\n") for text in texts]


@pytest.fixture
def model(port):
    """Sends a word, and the rest once `resume` is set."""
    resume = threading.Event()
    with WireServer(
        [HEAD, *text_deltas("one "), resume, *text_deltas("two"), piece({}, "stop"), DONE, LAST_CHUNK], port=port
    ) as server:
        server.resume = resume
        yield server
        resume.set()


def test_several_readers_share_one_run_of_the_agent(share_each, user, model):
    ada = ConversationBrowser(share_each(**settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    with ada.open_stream(conversation) as first, ada.open_stream(conversation) as second:
        first_frames, second_frames = parse_frames(first), parse_frames(second)
        assert (
            tokens([next(first_frames), next(first_frames)]) == tokens([next(second_frames), next(second_frames)]) == ["one "]
        )
        model.resume.set()
        rest = list(first_frames)
        assert list(second_frames) == rest

    assert [frame["event"] for frame in rest] == ["token", "done"]
    assert len(model.requests) == 1
    assert len(ada.replies(conversation)) == 1


def test_a_reader_can_resume_while_another_one_reads(share, kind, user, model):
    ada = ConversationBrowser(share(kind, **settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    with ada.open_stream(conversation) as staying_reply:
        staying = parse_frames(staying_reply)
        assert next(staying) == {"comment": "ok"}
        leaving_reply = ada.open_stream(conversation)
        received = list(islice(parse_frames(leaving_reply), 2))
        leaving_reply.leave()
        with ada.open_stream(conversation, Last_Event_ID=received[-1]["id"]) as resumed:
            model.resume.set()
            assert tokens(list(parse_frames(resumed))) == ["two"]
        assert tokens(list(staying)) == ["one ", "two"]
    assert len(model.requests) == 1


def test_on_disconnect_continue_of_one_reader_keeps_the_reply_running(share, kind, user, model):
    ada = ConversationBrowser(share(kind, **settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    readers = [ada.open_stream(conversation, query) for query in ("", "?on_disconnect=continue", "?on_disconnect=cancel")]
    for reader in readers:
        assert next(parse_frames(reader)) == {"comment": "ok"}
    for reader in readers:
        reader.leave()
    model.resume.set()

    assert eventually(lambda: [reply["content"] for reply in ada.replies(conversation)], DEADLINE) == ["one two"]
    assert len(model.requests) == 1


def test_conversation_on_disconnect_sets_the_default(serve, model):
    ada = ConversationBrowser(serve(CONVERSATION_ON_DISCONNECT="continue", **settings_of(model)))
    conversation = ada.begin("hello", agentId="openai")
    reader = ada.open_stream(conversation)
    assert next(parse_frames(reader)) == {"comment": "ok"}
    reader.leave()
    model.resume.set()

    assert eventually(lambda: [reply["content"] for reply in ada.replies(conversation)], DEADLINE) == ["one two"]


@pytest.mark.parametrize(("keep_stopped", "contents"), [("0", []), ("1", ["one "])])
def test_a_stop_ends_every_readers_stream_and_may_store_the_partial_reply(serve_each, keep_stopped, contents):
    with WireServer([HEAD, *text_deltas("one "), HANG]) as server:
        ada = ConversationBrowser(serve_each(KEEP_STOPPED=keep_stopped, **settings_of(server)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.open_stream(conversation) as first, ada.open_stream(conversation) as second:
            readers = parse_frames(first), parse_frames(second)
            assert all(tokens([next(frames), next(frames)]) == ["one "] for frames in readers)
            assert status_of(ada.request("POST", f"{ROOM}/{conversation}/stop")) == 202
            last = [list(frames) for frames in readers]
        assert server.wait_for(lambda: server.hung_up == 1, DEADLINE)

    [stored] = ada.replies(conversation) or [None]
    assert last[0] == last[1]
    assert [frame["event"] for frame in last[0]] == ["stopped"]
    assert last[0][0]["data"] == {"messageId": stored and stored["id"]}
    assert [message["content"] for message in ada.replies(conversation)] == contents
    assert status_of(ada.open_stream(conversation, Last_Event_ID=last[0][0]["id"])) == 204
    with ada.open_stream(conversation, "?agentId=echo") as retry:
        assert retry.status == (204 if contents else 200)


def test_a_second_reply_in_a_conversation_is_refused_while_one_runs(share_each, port, user):
    with WireServer([HEAD, *text_deltas("one "), HANG], port=port) as model:
        ada = ConversationBrowser(share_each(**settings_of(model)), user)
        conversation = ada.begin("hello", agentId="openai")
        with ada.open_stream(conversation) as reply:
            frames = parse_frames(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            later_message = ada.tell(conversation, "more")
            for query in ("?regenerate=again", f"?messageId={later_message}", ""):
                refused = ada.open_stream(conversation, query)
                assert (refused.status, refused.json()["code"]) == (409, "busy")
            elsewhere = ada.begin("elsewhere", agentId="echo")
            assert len(list(parse_frames(ada.open_stream(elsewhere)))) == 3

        assert eventually(lambda: status_of(ada.open_stream(conversation, "?agentId=echo")) == 200, DEADLINE)


def test_concurrent_readers_receive_the_same_reply(serve_each):
    ada = ConversationBrowser(serve_each(ECHO_WORD_SECONDS="0.05", MAX_STREAMS_PER_USER="50"))
    conversation = ada.begin("one two three four five six seven eight nine ten")

    def read(_):
        with ada.open_stream(conversation) as reply:
            return reply.status, tuple(tokens(list(parse_frames(reply)))) if reply.status == 200 else ()

    results = set(in_parallel(12, read))

    assert (200, ("one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight ", "nine ", "ten")) in results
    assert {status for status, _ in results} <= {200, 204}
    assert len({text for status, text in results if status == 200}) == 1
    assert len(ada.replies(conversation)) == 1


def test_a_conversation_is_usable_after_a_crash(serve_each):
    with WireServer([HEAD, *text_deltas("one "), HANG]) as model:
        settings = settings_of(model) | {"LEASE_SECONDS": "1", "MESSAGES_PER_MINUTE": "9999"}
        crashing, other = serve_each(**settings), ConversationBrowser(serve_each(**settings))
        conversation = other.begin("hello")
        reply = ConversationBrowser(crashing).open_stream(conversation, "?agentId=openai")
        assert next(parse_frames(reply)) == {"comment": "ok"}
        crashing.crash()
        reply.close()

        with other.open_stream(conversation) as reply:
            assert list(parse_frames(reply))[-1]["event"] == "done"
    assert [message["content"] for message in other.replies(conversation)] == ["hello"]


def test_deleting_a_conversation_ends_its_stream(share_each, port, user):
    with WireServer([HEAD, *text_deltas("one "), HANG], port=port) as model:
        ada = ConversationBrowser(share_each(**settings_of(model)), user)
        conversation = ada.begin("hello", agentId="openai")
        with ada.open_stream(conversation) as reply:
            frames = parse_frames(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            assert status_of(ada.request("DELETE", f"{ROOM}/{conversation}")) == 204
            last = list(frames)[-1]

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert (last["event"], last["data"]) == ("stopped", {"messageId": None})


def test_a_question_edited_during_its_reply_gets_another_reply(share_each, user, model):
    ada = ConversationBrowser(share_each(**settings_of(model)), user)
    conversation = ada.begin("hello", agentId="openai")
    question = ada.stored_messages(conversation)[0]["id"]
    with ada.open_stream(conversation) as reply:
        frames = parse_frames(reply)
        assert tokens([next(frames), next(frames)]) == ["one "]
        ada.request("PUT", f"{ROOM}/{conversation}/messages/{question}", {"content": "edited"}).close()
        assert status_of(ada.open_stream(conversation)) == 409
        model.resume.set()
        assert list(frames)[-1]["event"] == "done"

    assert list(parse_frames(ada.open_stream(conversation, "?agentId=echo")))[-1]["event"] == "done"
    assert [message["content"] for message in ada.replies(conversation)] == ["one two", "edited"]


class EventSource:
    """Reconnects with `Last-Event-ID` after every end, as the standard says, until it gets a status other than 200."""

    def __init__(self, talk: ConversationBrowser, conversation: str, reconnect_seconds: float) -> None:
        self._talk, self._conversation, self._reconnect_seconds = talk, conversation, reconnect_seconds
        self.statuses: list[int] = []
        self.frames: list[dict] = []

    def run(self, seconds: float) -> None:
        """Returns after a status other than 200, a `retry` field, or `seconds`."""
        deadline, last_id = time.monotonic() + seconds, ""
        while time.monotonic() < deadline and "retry" not in (self.frames or [{}])[-1]:
            headers = {"Last_Event_ID": last_id} if last_id else {}
            with closing(self._talk.open_stream(self._conversation, Accept="text/event-stream", **headers)) as reply:
                self.statuses.append(reply.status)
                if reply.status != 200:
                    return
                for frame in parse_frames(reply):
                    self.frames.append(frame)
                    last_id = frame.get("id", last_id)
            time.sleep(self._reconnect_seconds)


def test_an_event_source_that_reconnects_gets_one_reply(serve):
    ada = ConversationBrowser(serve())
    conversation = ada.begin("hello there")
    source = EventSource(ada, conversation, reconnect_seconds=0.5)

    source.run(10)

    assert source.statuses == [200, 204]
    assert tokens(source.frames) == ["hello ", "there"]
    assert len(ada.replies(conversation)) == 1


def test_a_failed_agent_is_not_called_again_by_a_reconnect(serve):
    with WireServer([error_reply("500 Internal Server Error")]) as model:
        ada = ConversationBrowser(serve(**settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        source = EventSource(ada, conversation, reconnect_seconds=0.1)

        source.run(20)

    assert len(model.requests) == 1
    assert source.statuses == [200, 204]
    assert ada.replies(conversation) == []


def test_another_process_replies_after_a_drain(serve):
    with WireServer([HEAD, *text_deltas("one "), HANG]) as model:
        server, other = serve(DRAIN_SECONDS="2", **settings_of(model)), ConversationBrowser(serve())
        conversation = other.begin("hello")
        quick_conversation = other.begin("quick")
        with (
            ConversationBrowser(server).open_stream(conversation, "?agentId=openai") as reply,
            ConversationBrowser(server).open_stream(quick_conversation) as quick_reply,
        ):
            frames = parse_frames(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            server.kill(signal.SIGTERM)
            assert list(parse_frames(quick_reply))[-1]["event"] == "done"
            last = list(frames)[-1]
        assert server.process.wait(30) == 0

    assert (last["event"], last["data"]["code"]) == ("failure", "server_restarting")
    assert other.replies(conversation) == []
    with other.open_stream(conversation) as reply:
        assert list(parse_frames(reply))[-1]["event"] == "done"


def test_conversation_streams_count_against_the_limit(serve):
    with WireServer([HEAD, HANG]) as model:
        ada = ConversationBrowser(serve(MAX_STREAMS_PER_USER="1", **settings_of(model)))
        conversation, other = ada.begin("hello", agentId="openai"), ada.begin("hello")
        with ada.open_stream(conversation) as reply:
            assert next(parse_frames(reply)) == {"comment": "ok"}
            refused = ada.open_stream(other)
            assert (refused.status, refused.json()["code"]) == (429, "too_many_requests")
        assert eventually(lambda: status_of(ada.open_stream(other)) == 200, DEADLINE)


def test_a_reply_is_ended_after_answer_max_seconds(serve, kind):
    with WireServer([HEAD, *text_deltas("one "), HANG]) as model:
        ada = ConversationBrowser(serve(kind, ANSWER_MAX_SECONDS="0.5", **settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.open_stream(conversation) as reply:
            frames = list(parse_frames(reply))

        assert model.wait_for(lambda: model.hung_up == 1, DEADLINE)
    assert (frames[-1]["event"], frames[-1]["data"]["code"]) == ("failure", "answer_timeout")
    assert ada.replies(conversation) == []


def test_conversations_survive_a_crash(serve_each):
    first = serve_each()
    conversation = ConversationBrowser(first).begin("hello", title="Kept")
    assert list(parse_frames(ConversationBrowser(first).open_stream(conversation)))[-1]["event"] == "done"
    first.crash()

    retry = ConversationBrowser(serve_each())

    assert [message["content"] for message in retry.stored_messages(conversation)] == ["hello", "hello"]
    assert json.loads(retry.request("GET", ROOM).read())["conversations"][0]["title"] == "Kept"


def test_an_unchunked_model_stream_is_read_without_delay(serve):
    resume = threading.Event()
    steps = [
        stream_head(chunked=False),
        b'data: {"choices":[{"delta":{"content":"one "}}]}\n\n',
        resume,
        b"data: [DONE]\n\n",
    ]
    with WireServer(steps) as model:
        ada = ConversationBrowser(serve(**settings_of(model)))
        conversation = ada.begin("hello", agentId="openai")
        with ada.open_stream(conversation) as reply:
            frames = parse_frames(reply)
            assert tokens([next(frames), next(frames)]) == ["one "]
            resume.set()
            assert next(frames)["event"] == "done"
