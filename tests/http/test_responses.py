"""Heartbeats, coalesced writes and client disconnects, on real servers under gevent and threads."""

import socket
from itertools import islice, pairwise
from time import monotonic

import pytest
from flask import Flask

from bff.http.responses import EventStream, StreamOptions, StreamStats
from bff.http.sse import Event, comment
from tests.broker_responses import QUEUED, RECEIPT
from tests.live import BROKER_KEY, DEADLINE, Browser, eventually, head, in_parallel
from tests.wire_server import HANG, LAST_CHUNK, RESET, WireServer, chunk, stream_head

KEEPALIVE = 'data: {"type":"keepalive"}\n'


def written(events, max_writes: int | None = None, stats: StreamStats | None = None, **options) -> list[bytes]:
    """What a stream of these events writes, up to `max_writes` writes."""
    app = Flask(__name__)
    stream_options = StreamOptions(**{"heartbeat": comment("beat"), "seconds": 60.0} | options)
    with app.test_request_context(), EventStream(events, stream_options, environ={}, stats=stats) as response:
        return list(islice(response.response, max_writes))


def test_ready_events_are_written_at_once():
    events = [Event("", "a"), Event("", "b"), None, None, Event("", "c"), None]

    assert written(lambda _: events) == [b"data: a\n\ndata: b\n\n", b"data: c\n\n"]


def test_remaining_events_are_written_at_the_end():
    assert written(lambda _: [Event("", "a")]) == [b"data: a\n\n"]


def test_headers_are_sent_alone_if_no_event_arrives_soon():
    def events(waiter):
        while waiter.wake_at < monotonic() + 1:
            waiter.wait()
            yield None
        yield Event("", "a")

    assert written(events) == [b"", b"data: a\n\n"]


def test_headers_sent_alone_are_not_counted_as_a_heartbeat():
    def events(waiter):
        yield None
        waiter.wait()
        yield None
        counts.append(stats.heartbeats)
        waiter.wait()
        yield None
        counts.append(stats.heartbeats)

    counts, stats = [], StreamStats()

    assert written(events, stats=stats, seconds=0.1) == [b"", comment("beat")]
    assert counts == [0, 1]


def test_a_heartbeat_is_sent_after_silence():
    def events(waiter):
        while True:
            yield None
            waiter.wait()

    start = monotonic()

    assert written(events, 4, seconds=0.1) == [b"", *[comment("beat")] * 3]
    assert monotonic() - start > 0.25


def test_an_exception_ends_the_stream_and_is_logged(caplog):
    def events(_):
        yield Event("", "a")
        yield None
        raise OSError("not a client disconnect")

    assert written(events) == [b"data: a\n\n"]
    assert "a stream broke" in caplog.text


# On real servers


@pytest.fixture
def silent_broker():
    """A broker whose streams send `queued` and then nothing."""
    with WireServer([RECEIPT], [stream_head(), QUEUED, HANG]) as broker:
        yield broker


def start_with(start, kind, broker, **settings):
    return start(kind, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **settings)


@pytest.mark.live
@pytest.mark.parametrize(("heartbeat", "frame"), [("event", KEEPALIVE), ("comment", ": keepalive\n")])
def test_heartbeats_are_sent_while_the_broker_is_silent(start, kind, silent_broker, heartbeat, frame):
    server = start_with(start, kind, silent_broker, HEARTBEAT_SECONDS="0.3", HEARTBEAT=heartbeat)

    with Browser(server).say("hello") as reply:
        frames, moments = [], []
        for frame_read in reply.frames():
            frames.append(frame_read)
            moments.append(monotonic())
            if len(frames) == 4:
                reply.leave()
                break

    assert frames[1:] == [frame] * 3
    assert all(later - earlier < 1.3 for earlier, later in pairwise(moments))
    assert moments[-1] - moments[0] > 0.6


@pytest.mark.live
def test_heartbeats_are_sent_while_the_broker_only_pings(start, kind):
    pings = [step for _ in range(20) for step in (chunk(b": ping\r\n\r\n"), 0.1)]
    with WireServer([RECEIPT], [stream_head(), QUEUED, *pings, LAST_CHUNK]) as broker:
        server = start_with(start, kind, broker, HEARTBEAT_SECONDS="0.3")

        with Browser(server).say("hello") as reply:
            frames = [(frame, monotonic()) for frame, _ in zip(reply.frames(), range(5), strict=False)]
            reply.leave()

    assert [frame for frame, _ in frames[1:]] == [KEEPALIVE] * 4
    assert all(later - earlier < 1.3 for (_, earlier), (_, later) in pairwise(frames))
    assert frames[-1][1] - frames[0][1] > 0.9


@pytest.mark.live
def test_heartbeats_are_sent_while_a_message_is_queued(start, kind):
    server = start(kind, HEARTBEAT_SECONDS="0.2")
    browser = Browser(server)

    with browser.say("/silence 1"), browser.say("later") as reply:
        events = list(reply.events())

    kinds = [event["type"] for event in events]
    assert kinds.count("keepalive") >= 3
    assert all("id" not in event for event in events if event["type"] == "keepalive")


DISCONNECTS = {
    "closes": lambda sock: sock.close(),
    "resets": lambda sock: (
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET),
        sock.close(),
    ),
    "shuts down": lambda sock: sock.shutdown(socket.SHUT_RDWR),
}


def open_stream(server, message: str = "hello", marker: bytes = b"data: ") -> socket.socket:
    """Opens a stream on a bare socket and reads it up to `marker`."""
    body = f'{{"message": "{message}"}}'.encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(head("POST", "/api/chat/stream", body=body) + body)
    received = b""
    while marker not in received:
        piece = sock.recv(65536)
        assert piece, received
        received += piece
    return sock


@pytest.mark.live
@pytest.mark.parametrize("disconnect", DISCONNECTS.values(), ids=DISCONNECTS)
def test_a_disconnect_is_noticed_at_once(start, kind, silent_broker, disconnect):
    server = start_with(start, kind, silent_broker)
    sock = open_stream(server)
    start_time = monotonic()

    disconnect(sock)

    assert silent_broker.wait_for(lambda: silent_broker.hung_up == 1)
    assert monotonic() - start_time < 1.0, "100 ms, and more on a busy machine"
    sock.close()


@pytest.mark.live
def test_a_half_closed_client_still_gets_its_reply(start, kind):
    server = start(kind)
    sock = open_stream(server, "/slow 1 one two", marker=b'"one "')

    sock.shutdown(socket.SHUT_WR)
    received = b""
    while piece := sock.recv(65536):
        received += piece

    sock.close()
    assert b'"type":"keepalive"' in received, "a heartbeat is sent in response to the FIN"
    assert b'"type":"complete"' in received


@pytest.mark.live
def test_200_disconnected_clients_leak_nothing(start, kind):
    with WireServer(
        lambda request: [RECEIPT] if request.method == "POST" else [stream_head(), chunk(b": hi\n\n"), 0.01, QUEUED, HANG]
    ) as broker:
        server = start_with(start, kind, broker, MAX_STREAMS_PER_USER="1000", MESSAGES_PER_MINUTE="10000")
        Browser(server).request("GET", "/healthz").read()
        open_stream(server).close()
        assert broker.wait_for(lambda: broker.open_connections <= 1)
        base = server.descriptors(), server.threads()

        for sock in in_parallel(200, lambda _: open_stream(server)):
            sock.close()

        assert broker.wait_for(lambda: broker.open_connections <= 64, DEADLINE), "no more than the pool keeps open"
        assert eventually(lambda: server.descriptors() <= base[0] + 64 and server.threads() <= base[1] + 12, DEADLINE)
