"""A process that is told to stop: readers who come back go on elsewhere, the others may finish, and it leaves by itself."""

import contextlib
import http.client
import os
import re
import signal
import socket
from pathlib import Path
from time import monotonic

import pytest

from tests.broker_says import QUEUED, TICKET
from tests.faults.load import Crowd, Stream, all_over
from tests.live import ADA, BROKER_KEY, Browser, Server, eventually, head, status_of, text_of
from tests.original_broker import OriginalBroker
from tests.wire_server import HANG, WireServer, stream_head

WORDS = " ".join(f"word-{number}" for number in range(40))
SPREAD = 0.4
"""The part of DRAIN_SECONDS over which readers are sent away."""


@pytest.fixture
def broker(start):
    return start("broker", BROKER_API_KEY=BROKER_KEY)


@pytest.fixture
def web(start, broker):
    """`web()`: another web process in front of the one broker."""

    def begin(**settings) -> Server:
        return start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)

    return begin


def tell_to_stop_as_platforms_do(server: Server) -> None:
    """Every process, more than once."""
    worker = server.worker_pid
    for _ in range(3):
        server.kill(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)


def all_began(streams: list[Stream]):
    return lambda: all(any(event["type"] == "progress" for event in stream.events) for stream in streams)


@pytest.mark.live
@pytest.mark.timeout(60)
def test_readers_who_come_back_are_sent_away_one_by_one_and_go_on_elsewhere(web):
    old, new = web(DRAIN_SECONDS="5"), web()

    with Crowd(old.port) as crowd:
        said = [crowd.say(f"/slow 7 {WORDS}") for _ in range(20)]
        assert crowd.wait_for(lambda: all(stream.message_id for stream in said))
        followed = [crowd.follow(stream) for stream in said]
        assert crowd.wait_for(all_began(said + followed))
        crowd.port = new.port
        told = monotonic()
        tell_to_stop_as_platforms_do(old)
        assert crowd.wait_for(all_over(said + followed), 20)

    assert all(stream.is_exact() for stream in said + followed)
    firsts = [stream.connections[0] for stream in said + followed]
    assert {connection.how for connection in firsts} == {"clean"}
    assert all(len(stream.connections) > 1 for stream in said + followed), "not one had its end before it was sent away"
    ends = sorted(connection.ended - told for connection in firsts)
    assert ends[-1] - ends[0] > 5 * SPREAD * 0.6
    assert ends[-1] < 5 * SPREAD + 1.5
    assert old.process.wait(10) == 0
    assert monotonic() - told < 12, "by itself, before it would be killed"
    assert old.ended == ["drained"] * 40


@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(60)
def test_readers_who_do_not_come_back_may_finish_and_the_last_are_told(web):
    server = web(DRAIN_SECONDS="4")

    with Crowd(server.port) as crowd:
        short = [crowd.say(f"/slow 2 {WORDS}", comes_back=False) for _ in range(10)]
        endless = [crowd.say(f"/slow 60 {WORDS}", comes_back=False) for _ in range(10)]
        silent = [crowd.say("/silence 60", comes_back=False) for _ in range(5)]
        assert crowd.wait_for(lambda: all(stream.message_id for stream in short + endless + silent))
        told = monotonic()
        tell_to_stop_as_platforms_do(server)
        assert crowd.wait_for(all_over(short + endless + silent))

    assert all(stream.is_exact() for stream in short)
    for stream in endless + silent:
        (connection,) = stream.connections
        assert (stream.end, connection.how) == ("server_restarting", "clean")
        assert set(stream.events[-1]) == {"type", "error", "code", "request_id", "at"}
        assert connection.ended - told < 4.5, "inside DRAIN_SECONDS"
    assert server.process.wait(10) == 0
    assert monotonic() - told < 11
    assert sorted(server.ended) == ["complete"] * 10 + ["server_restarting"] * 15


@pytest.mark.live
@pytest.mark.parametrize("kind", ["gunicorn", "adopted"])
def test_with_the_broker_inside_nobody_is_sent_away_from_the_only_place_that_knows_the_answer(start, kind):
    server = start(kind, DRAIN_SECONDS="4", QUEUE_FILE="off")

    with Crowd(server.port) as crowd:
        short = [crowd.say(f"/slow 2 {WORDS}") for _ in range(5)]
        endless = [crowd.say(f"/slow 60 {WORDS}") for _ in range(5)]
        assert crowd.wait_for(lambda: all(stream.message_id for stream in short + endless))
        followed = [crowd.follow(stream) for stream in short]
        assert crowd.wait_for(all_began(followed))
        tell_to_stop_as_platforms_do(server)
        assert crowd.wait_for(all_over(short + followed + endless))

    assert all(stream.is_exact() for stream in short + followed)
    assert [stream.end for stream in endless] == ["server_restarting"] * 5
    assert server.process.wait(10) == 0


@pytest.mark.live
def test_an_answer_that_only_this_process_holds_is_left_to_finish(start):
    words = "one two three four five six seven eight"
    with OriginalBroker(word_seconds=0.25) as broker:
        server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="6")

        with Crowd(server.port) as crowd:
            stream = crowd.say(words)
            assert crowd.wait_for(all_began([stream]))
            server.kill(signal.SIGTERM)
            assert crowd.wait_for(lambda: stream.over)

    assert (stream.text.strip(), stream.end, len(stream.connections)) == (words, "complete", 1)


@pytest.mark.live
def test_a_stream_that_was_still_being_opened_ends_too(start):
    with WireServer([TICKET], [3.0, stream_head(), QUEUED, HANG]) as broker:
        server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="2")

        with Crowd(server.port) as crowd:
            stream = crowd.say("hello", comes_back=False)
            assert broker.wait_for(lambda: len(broker.requests) == 2)
            server.kill(signal.SIGTERM)
            assert crowd.wait_for(lambda: stream.over)

    assert (stream.end, stream.connections[0].how) == ("server_restarting", "clean")
    assert server.process.wait(10) == 0


def kept_alive(server: Server) -> http.client.HTTPConnection:
    """A connection that has served one request and is open for the next."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    return connection


@pytest.mark.alone
@pytest.mark.live
def test_what_still_arrives_while_it_drains_is_sent_elsewhere(web):
    server = web(DRAIN_SECONDS="4")
    names = ("ready", "healthy", "post", "get", "source", "other source")
    doors = {name: kept_alive(server) for name in names}

    with Browser(server).say("/slow 2 one two three") as reply:
        server.kill(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(server)), "it stops listening"

        def ask(name: str, method: str, path: str, body: bytes | None = None, **headers: str):
            doors[name].request(method, path, body, ADA | headers)
            response = doors[name].getresponse()
            return response, response.read()

        ready, _ = ask("ready", "GET", "/readyz")
        healthy, _ = ask("healthy", "GET", "/healthz")
        post, refusal = ask("post", "POST", "/api/chat/stream", b'{"message":"late"}', **{"Content-Type": "application/json"})
        get, _ = ask("get", "GET", "/api/chat/active")
        path = f"/api/chat/stream/{reply.message_id}"
        sources = [ask(name, "GET", path, Accept="text/event-stream") for name in ("source", "other source")]

        events = list(reply.events())

    assert (ready.status, healthy.status) == (503, 200)
    assert (post.status, post.headers["Retry-After"], b'"server_restarting"' in refusal) == (503, "1", True)
    assert (get.status, get.headers["Retry-After"]) == (503, "1")
    for source, body in sources:
        assert (source.status, source.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert re.fullmatch(rb"retry: [0-9]+\n\n", body)
    assert sources[0][1] != sources[1][1], "jittered"
    assert (text_of(events), events[-1]["type"]) == ("one two three", "complete")
    assert server.process.wait(10) == 0


def refuses_connections(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.live
def test_a_process_without_streams_is_gone_at_once(web):
    server = web()
    with Browser(server).say("hello") as reply:
        list(reply.events())

    told = monotonic()
    tell_to_stop_as_platforms_do(server)

    assert server.process.wait(10) == 0
    assert monotonic() - told < 5, "a look at the signal a second, twice"


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_an_impatient_signal_ends_it_at_once(web, number):
    server = web()

    with Crowd(server.port) as crowd:
        streams = [crowd.say(f"/slow 60 {WORDS}", comes_back=False) for _ in range(10)]
        assert crowd.wait_for(all_began(streams))
        told = monotonic()
        server.kill(number)
        status = server.process.wait(10)
        took = monotonic() - told
        assert crowd.wait_for(all_over(streams))

    assert took < 4, "a second or two"
    assert status == 0


@pytest.mark.live
def test_patience_that_runs_out_ends_a_drain(web):
    server = web()

    with Crowd(server.port) as crowd:
        stream = crowd.say(f"/slow 60 {WORDS}", comes_back=False)
        assert crowd.wait_for(all_began([stream]))
        server.kill(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(server))
        told = monotonic()
        server.kill(signal.SIGINT)
        server.process.wait(10)

    assert monotonic() - told < 5


@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_reload_replaces_the_worker_under_open_streams(web):
    server = web(DRAIN_SECONDS="4")
    before = server.worker_pid

    with Crowd(server.port) as crowd:
        streams = [crowd.say(f"/slow 6 {WORDS}") for _ in range(20)]
        patient = [crowd.say(f"/slow 2 {WORDS}", comes_back=False) for _ in range(5)]
        assert crowd.wait_for(all_began(streams + patient))
        server.kill(signal.SIGHUP)
        assert crowd.wait_for(all_over(streams + patient), 20)

    assert all(stream.is_exact() for stream in streams + patient)
    assert any(len(stream.connections) > 1 for stream in streams)
    assert eventually(lambda: not Path(f"/proc/{before}").exists(), 10), "the old worker has left"
    assert server.worker_pid != before
    with Browser(server).say("hello") as reply:
        assert text_of(list(reply.events())) == "hello"


@pytest.mark.live
@pytest.mark.timeout(60)
def test_processes_that_are_counted_together_are_reloaded_and_leave_no_counts_behind(start, clean_redis, tmp_path):
    server = start("gunicorn", REDIS_URL=clean_redis.url, WEB_CONCURRENCY="2", TMPDIR=str(tmp_path))

    server.kill(signal.SIGHUP)

    assert eventually(lambda: len([*tmp_path.glob("chat-bff-*")]) == 2, 10), "a folder of their own"
    assert eventually(lambda: status_of(Browser(server).say("hello")) == 200, 10), "those that drain refuse it"
    assert server.stop(signal.SIGTERM) == 0
    assert not [*tmp_path.glob("chat-bff-*")]


# The broker in a process of its own


@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_broker_that_drains_lets_answers_finish_and_leaves_by_itself(start):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="4")
    server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)

    with Crowd(server.port) as crowd:
        short = [crowd.say(f"/slow 2 {WORDS}") for _ in range(10)]
        endless = [crowd.say(f"/slow 60 {WORDS}") for _ in range(10)]
        old_clients = [crowd.say(f"/slow 60 {WORDS}", comes_back=False) for _ in range(10)]
        assert crowd.wait_for(all_began(short + endless + old_clients))
        told = monotonic()
        tell_to_stop_as_platforms_do(broker)
        assert broker.process.wait(14) == 0
        assert monotonic() - told < 11
        assert crowd.wait_for(all_over(short + old_clients), 25)
        assert crowd.wait_for(lambda: all(stream.connections[0].how for stream in endless), 25)
        again = start("broker", BROKER_API_KEY=BROKER_KEY, port=broker.port)
        assert crowd.wait_for(all_over(endless), 25)

    assert again.url == broker.url
    assert all(stream.is_exact() for stream in short)
    assert all(stream.end == "upstream_unavailable" for stream in old_clients)
    for stream in endless:
        first, *_, last = stream.connections
        assert (stream.end, first.how, last.wire.status) == ("", "clean", 404), "sent away, it learned that its answer is gone"


@pytest.mark.live
def test_a_reader_that_does_not_read_does_not_hold_up_the_exit(start):
    server = start(DRAIN_SECONDS="2")
    body = b'{"message": "/big 8000"}'
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(head("POST", "/api/chat/stream", body=body) + body)
        assert sock.recv(100)
        began = monotonic()

        assert server.stop(signal.SIGTERM) == 0

    assert monotonic() - began < 8, "graceful_timeout would be 12 s"
    assert "graceful timeout" not in server.log
