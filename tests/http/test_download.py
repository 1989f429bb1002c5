"""Recordings on real servers, under gevent and threads: slow and disconnecting clients and engines."""

import http.client
import signal
import socket
import threading
from urllib.parse import quote

import pytest

from tests.api.engine_requests import RECORDING
from tests.live import Browser, Server, eventually, head
from tests.wire_server import CUT, END, HANG, WireServer, reply, stream_head

MIB = 2**20
SOUND = bytes(range(256)) * 1000
LARGE = [stream_head("audio/mpeg", chunked=False, Content_Length=str(24 * MIB)), *[bytes(MIB)] * 24, HANG]
STOPS = [stream_head("audio/mpeg", chunked=False, Content_Length=str(len(SOUND))), SOUND[:9000], HANG]

pytestmark = pytest.mark.live


def path_of(engine: WireServer) -> str:
    return f"/api/audio?url={quote(engine.url + RECORDING, safe='')}"


def connect(server: Server, engine: WireServer) -> socket.socket:
    """A client with a small receive buffer that has requested a recording."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(head("GET", path_of(engine)))
    return sock


def test_a_player_reads_a_recording_in_parts(start, kind):
    with WireServer([reply(SOUND, content_type="audio/wav")]) as engine:
        browser = Browser(start(kind, ENGINE_BASE_URL=engine.url))

        parts = [browser.request("GET", path_of(engine), Range=f"bytes={at}-{at + 99_999}") for at in (0, 100_000, 200_000)]

        assert [part.status for part in parts] == [206] * 3
        assert b"".join(part.read() for part in parts) == SOUND


def test_a_large_recording_is_not_buffered(start, kind):
    with WireServer(LARGE) as engine:
        server = start(kind, ENGINE_BASE_URL=engine.url)
        browser = Browser(server)
        browser.request("GET", path_of(engine), Range="bytes=0-9").read()
        before = server.memory()

        body = browser.request("GET", path_of(engine)).read()

        assert len(body) == 24 * MIB
        assert server.memory() - before < 12 * MIB


def test_a_disconnect_closes_the_engines_stream(start, kind):
    with WireServer(STOPS) as engine:
        server = start(kind, ENGINE_BASE_URL=engine.url)
        sock = connect(server, engine)
        received = b""
        while SOUND[:9000] not in received:
            piece = sock.recv(65536)
            assert piece, received
            received += piece

        sock.close()

        assert engine.wait_for(lambda: engine.hung_up == 1, 15)
        assert eventually(lambda: "aborted" in server.ended, 15)


def test_a_client_that_does_not_read_is_disconnected(start, kind):
    with WireServer(LARGE) as engine:
        server = start(kind, ENGINE_BASE_URL=engine.url, SLOW_READER_SECONDS="1")
        memory = server.memory()

        with connect(server, engine):
            assert engine.wait_for(lambda: len(engine.requests) == 1 and not engine.open_connections, 25)

        assert server.memory() - memory < 12 * MIB
        assert eventually(lambda: "aborted" in server.ended, 15)


FAILURES = {"cut": (CUT, "upstream_unavailable"), "short": (END, "upstream_unavailable"), "silent": (HANG, "upstream_timeout")}


@pytest.mark.parametrize(("last", "code"), FAILURES.values(), ids=FAILURES)
def test_an_incomplete_recording_ends_in_a_broken_response(start, kind, last, code):
    response_started = threading.Event()

    with WireServer([*STOPS[:-1], response_started, last]) as engine:
        silence = {"UPSTREAM_READ_SECONDS": "0.5"} if last is HANG else {}
        server = start(kind, ENGINE_BASE_URL=engine.url, **silence)
        reply = Browser(server).request("GET", path_of(engine))
        response_started.set()
        with pytest.raises(http.client.IncompleteRead) as cut:
            reply.read()

        assert SOUND.startswith(cut.value.partial)
        assert eventually(lambda: code in server.ended, 15)


def test_a_drain_ends_an_endless_recording(start):
    with WireServer(STOPS) as engine:
        server = start(ENGINE_BASE_URL=engine.url, DRAIN_SECONDS="2")
        sock = connect(server, engine)
        sock.recv(1)

        assert server.stop(signal.SIGTERM) == 0

        assert engine.wait_for(lambda: engine.hung_up == 1, 15)
        assert "server_restarting" in server.ended
        sock.close()
