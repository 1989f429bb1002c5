"""Draining after SIGTERM: resumable readers reconnect elsewhere, others may finish, and the process exits by itself."""

import contextlib
import http.client
import os
import re
import signal
import socket
from pathlib import Path
from time import monotonic

import pytest

from tests.broker_responses import QUEUED, RECEIPT
from tests.faults.load import Clients, Stream, all_done
from tests.live import ADA, BROKER_KEY, Browser, Server, eventually, head, status_of, text_of
from tests.original_broker import OriginalBroker
from tests.wire_server import HANG, WireServer, stream_head

WORDS = " ".join(f"word-{number}" for number in range(40))
SPREAD = 0.4
"""The fraction of DRAIN_SECONDS over which readers are disconnected."""


@pytest.fixture
def broker(start):
    return start("broker", BROKER_API_KEY=BROKER_KEY)


@pytest.fixture
def web(start, broker):
    """`web()` starts a web process of the one broker."""

    def start_web(**settings) -> Server:
        return start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)

    return start_web


def send_sigterm_as_platforms_do(server: Server) -> None:
    """Signals every process, more than once."""
    worker = server.worker_pid
    for _ in range(3):
        server.kill(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)


def all_started(streams: list[Stream]):
    return lambda: all(any(event["type"] == "progress" for event in stream.events) for stream in streams)


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(60)
def test_resumable_readers_are_disconnected_gradually_and_resume_elsewhere(web):
    old, new = web(DRAIN_SECONDS="5"), web()

    with Clients(old.port) as clients:
        posted = [clients.send(f"/slow 7 {WORDS}") for _ in range(20)]
        assert clients.wait_for(lambda: all(stream.message_id for stream in posted))
        followed = [clients.follow(stream) for stream in posted]
        assert clients.wait_for(all_started(posted + followed))
        clients.port = new.port
        signalled = monotonic()
        send_sigterm_as_platforms_do(old)
        assert clients.wait_for(all_done(posted + followed), 20)

    assert all(stream.is_exact() for stream in posted + followed)
    firsts = [stream.connections[0] for stream in posted + followed]
    assert {connection.outcome for connection in firsts} == {"clean"}
    assert all(len(stream.connections) > 1 for stream in posted + followed), "none had ended before it was disconnected"
    ends = sorted(connection.ended - signalled for connection in firsts)
    assert ends[-1] - ends[0] > 5 * SPREAD * 0.6
    assert ends[-1] < 5 * SPREAD + 1.5
    assert old.process.wait(10) == 0
    assert monotonic() - signalled < 12, "exits by itself, before it would be killed"
    assert old.ended == ["drained"] * 40


@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(60)
def test_other_readers_may_finish_until_the_drain_ends(web):
    server = web(DRAIN_SECONDS="4")

    with Clients(server.port) as clients:
        short = [clients.send(f"/slow 2 {WORDS}", resumable=False) for _ in range(10)]
        endless = [clients.send(f"/slow 60 {WORDS}", resumable=False) for _ in range(10)]
        silent = [clients.send("/silence 60", resumable=False) for _ in range(5)]
        assert clients.wait_for(lambda: all(stream.message_id for stream in short + endless + silent))
        signalled = monotonic()
        send_sigterm_as_platforms_do(server)
        assert clients.wait_for(all_done(short + endless + silent))

    assert all(stream.is_exact() for stream in short)
    for stream in endless + silent:
        (connection,) = stream.connections
        assert (stream.end, connection.outcome) == ("server_restarting", "clean")
        assert set(stream.events[-1]) == {"type", "error", "code", "request_id", "at"}
        assert connection.ended - signalled < 4.5, "within DRAIN_SECONDS"
    assert server.process.wait(10) == 0
    assert monotonic() - signalled < 11
    assert sorted(server.ended) == ["complete"] * 10 + ["server_restarting"] * 15


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.parametrize("kind", ["gunicorn", "adopted"])
def test_with_an_embedded_broker_readers_stay_until_their_replies_end(start, kind):
    server = start(kind, DRAIN_SECONDS="4", QUEUE_FILE="off")

    with Clients(server.port) as clients:
        short = [clients.send(f"/slow 2 {WORDS}") for _ in range(5)]
        endless = [clients.send(f"/slow 60 {WORDS}") for _ in range(5)]
        assert clients.wait_for(lambda: all(stream.message_id for stream in short + endless))
        followed = [clients.follow(stream) for stream in short]
        assert clients.wait_for(all_started(followed))
        send_sigterm_as_platforms_do(server)
        assert clients.wait_for(all_done(short + followed + endless))

    assert all(stream.is_exact() for stream in short + followed)
    assert [stream.end for stream in endless] == ["server_restarting"] * 5
    assert server.process.wait(10) == 0


@pytest.mark.live
def test_a_reply_of_a_broker_without_ids_may_finish(start):
    words = "one two three four five six seven eight"
    with OriginalBroker(word_seconds=0.25) as broker:
        server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="6")

        with Clients(server.port) as clients:
            stream = clients.send(words)
            assert clients.wait_for(all_started([stream]))
            server.kill(signal.SIGTERM)
            assert clients.wait_for(lambda: stream.done)

    assert (stream.text.strip(), stream.end, len(stream.connections)) == (words, "complete", 1)


@pytest.mark.live
def test_a_stream_that_is_being_opened_ends(start):
    with WireServer([RECEIPT], [3.0, stream_head(), QUEUED, HANG]) as broker:
        server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="2")

        with Clients(server.port) as clients:
            stream = clients.send("hello", resumable=False)
            assert broker.wait_for(lambda: len(broker.requests) == 2)
            server.kill(signal.SIGTERM)
            assert clients.wait_for(lambda: stream.done)

    assert (stream.end, stream.connections[0].outcome) == ("server_restarting", "clean")
    assert server.process.wait(10) == 0


def idle_connection(server: Server) -> http.client.HTTPConnection:
    """A keep-alive connection after one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    return connection


@pytest.mark.alone
@pytest.mark.live
def test_requests_during_a_drain_are_refused(web):
    server = web(DRAIN_SECONDS="4")
    names = ("ready", "healthy", "post", "get", "source", "second source")
    connections = {name: idle_connection(server) for name in names}

    with Browser(server).say("/slow 2 one two three") as reply:
        server.kill(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(server)), "it no longer accepts connections"

        def request(name: str, method: str, path: str, body: bytes | None = None, **headers: str):
            connections[name].request(method, path, body, ADA | headers)
            response = connections[name].getresponse()
            return response, response.read()

        ready, _ = request("ready", "GET", "/readyz")
        healthy, _ = request("healthy", "GET", "/healthz")
        post, refusal = request(
            "post", "POST", "/api/chat/stream", b'{"message":"late"}', **{"Content-Type": "application/json"}
        )
        get, _ = request("get", "GET", "/api/chat/active")
        path = f"/api/chat/stream/{reply.message_id}"
        sources = [request(name, "GET", path, Accept="text/event-stream") for name in ("source", "second source")]

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
def test_a_process_without_streams_exits_at_once(web):
    server = web()
    with Browser(server).say("hello") as reply:
        list(reply.events())

    signalled = monotonic()
    send_sigterm_as_platforms_do(server)

    assert server.process.wait(10) == 0
    assert monotonic() - signalled < 5, "the signal is checked once a second, by two processes"


@pytest.mark.live
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGQUIT])
def test_sigint_and_sigquit_end_the_process_at_once(web, signal_number):
    server = web()

    with Clients(server.port) as clients:
        streams = [clients.send(f"/slow 60 {WORDS}", resumable=False) for _ in range(10)]
        assert clients.wait_for(all_started(streams))
        signalled = monotonic()
        server.kill(signal_number)
        status = server.process.wait(10)
        elapsed = monotonic() - signalled
        assert clients.wait_for(all_done(streams))

    assert elapsed < 4, "one or two seconds"
    assert status == 0


@pytest.mark.live
def test_sigint_ends_a_drain(web):
    server = web()

    with Clients(server.port) as clients:
        stream = clients.send(f"/slow 60 {WORDS}", resumable=False)
        assert clients.wait_for(all_started([stream]))
        server.kill(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(server))
        signalled = monotonic()
        server.kill(signal.SIGINT)
        server.process.wait(10)

    assert monotonic() - signalled < 5


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_reload_replaces_the_worker_without_losing_streams(web):
    server = web(DRAIN_SECONDS="4")
    before = server.worker_pid

    with Clients(server.port) as clients:
        streams = [clients.send(f"/slow 6 {WORDS}") for _ in range(20)]
        not_resumable = [clients.send(f"/slow 2 {WORDS}", resumable=False) for _ in range(5)]
        assert clients.wait_for(all_started(streams + not_resumable))
        server.kill(signal.SIGHUP)
        assert clients.wait_for(all_done(streams + not_resumable), 20)

    assert all(stream.is_exact() for stream in streams + not_resumable)
    assert any(len(stream.connections) > 1 for stream in streams)
    assert eventually(lambda: not Path(f"/proc/{before}").exists(), 10), "the old worker has exited"
    assert server.worker_pid != before
    with Browser(server).say("hello") as reply:
        assert text_of(list(reply.events())) == "hello"


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_reload_of_several_processes_leaves_no_shared_counts(start, clean_redis, tmp_path):
    server = start("gunicorn", REDIS_URL=clean_redis.url, WEB_CONCURRENCY="2", TMPDIR=str(tmp_path))

    server.kill(signal.SIGHUP)

    assert eventually(lambda: len([*tmp_path.glob("chat-bff-*")]) == 2, 10), "the new processes have a folder of their own"
    assert eventually(lambda: status_of(Browser(server).say("hello")) == 200, 10), "draining processes refuse it"
    assert server.stop(signal.SIGTERM) == 0
    assert not [*tmp_path.glob("chat-bff-*")]


# The broker in its own process


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_draining_broker_lets_replies_finish_and_exits(start):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY, DRAIN_SECONDS="4")
    server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)

    with Clients(server.port) as clients:
        short = [clients.send(f"/slow 2 {WORDS}") for _ in range(10)]
        endless = [clients.send(f"/slow 60 {WORDS}") for _ in range(10)]
        old_clients = [clients.send(f"/slow 60 {WORDS}", resumable=False) for _ in range(10)]
        assert clients.wait_for(all_started(short + endless + old_clients))
        signalled = monotonic()
        send_sigterm_as_platforms_do(broker)
        assert broker.process.wait(14) == 0
        assert monotonic() - signalled < 11
        assert clients.wait_for(all_done(short + old_clients), 25)
        assert clients.wait_for(lambda: all(stream.connections[0].outcome for stream in endless), 25)
        restarted = start("broker", BROKER_API_KEY=BROKER_KEY, port=broker.port)
        assert clients.wait_for(all_done(endless), 25)

    assert restarted.url == broker.url
    assert all(stream.is_exact() for stream in short)
    assert all(stream.end == "upstream_unavailable" for stream in old_clients)
    for stream in endless:
        first, *_, last = stream.connections
        assert (stream.end, first.outcome, last.wire.status) == ("", "clean", 404), (
            "disconnected; on reconnecting, the reply is gone"
        )


@pytest.mark.live
def test_a_reader_that_does_not_read_does_not_delay_the_exit(start):
    server = start(DRAIN_SECONDS="2")
    body = b'{"message": "/big 8000"}'
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(head("POST", "/api/chat/stream", body=body) + body)
        assert sock.recv(100)
        started = monotonic()

        assert server.stop(signal.SIGTERM) == 0

    assert monotonic() - started < 8, "graceful_timeout would be 12 s"
    assert "graceful timeout" not in server.log


@pytest.mark.slow
@pytest.mark.live
def test_metrics_of_killed_processes_are_removed_by_the_next_start(start, clean_redis, tmp_path):
    options = {"REDIS_URL": clean_redis.url, "WEB_CONCURRENCY": "2", "TMPDIR": str(tmp_path)}
    killed = start("gunicorn", **options)
    (abandoned,) = tmp_path.glob("chat-bff-*")
    start("gunicorn", **options)
    killed.crash()
    assert abandoned.exists()

    start("gunicorn", **options)
    assert not abandoned.exists()
    assert len([*tmp_path.glob("chat-bff-*")]) == 2, "those of the running processes"
