"""Informational responses (1xx) before the final one are skipped, within limits, wherever their bytes are cut."""

import random
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from time import monotonic
from typing import Any

import jwt
import pytest
import trustme

from bff.errors import ClientDisconnected, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.upstream import http
from bff.upstream.http import EventSource, new_session, tls_context
from bff.upstream.http.response_head import MAX_HEAD_BYTES, MAX_INFORMATIONAL
from tests.broker_responses import COMPLETED, QUEUED, RECEIPT
from tests.live import ADA, BROKER_KEY, Browser, in_parallel, new_app
from tests.wire_server import END, HANG, LAST_CHUNK, Request, WireServer, chunk, reply, stream_head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PROCESSING = b"HTTP/1.1 102\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nContent-Length: 5\r\n\r\n"
ALL = CONTINUE + EARLY_HINTS + PROCESSING + EARLY_HINTS
JSON = reply(b'{"a":1}')


def fetch(server: WireServer, seconds: float = 5.0, session: Any = None, **options: Any) -> http.Response:
    deadline = monotonic() + seconds
    return http.send(session or new_session(), "GET", server.url, headers={}, connect=1.0, deadline=deadline, **options)


def read(server: WireServer, **options: Any) -> dict[str, Any]:
    return http.read_json(fetch(server, **options), monotonic() + 5)


@pytest.mark.parametrize("before", [CONTINUE, EARLY_HINTS, PROCESSING, ALL, EARLY_HINTS * MAX_INFORMATIONAL])
def test_informational_responses_are_skipped(before):
    with WireServer([before + JSON]) as server:
        assert read(server) == {"a": 1}


def test_informational_responses_are_skipped_wherever_they_are_cut():
    wire, dice = ALL + JSON, random.Random(1)

    for edges in [range(len(wire) + 1), *([0, *sorted(dice.sample(range(1, len(wire)), 9)), len(wire)] for _ in range(20))]:
        steps = [step for a, b in pairwise(edges) for step in (wire[a:b], 0.0005)]
        with WireServer(steps) as server:
            assert read(server) == {"a": 1}, list(edges)


def test_informational_responses_before_a_stream_are_skipped():
    with WireServer([EARLY_HINTS, 0.01, EARLY_HINTS + stream_head() + chunk(b"data: x\n\n"), LAST_CHUNK]) as server:
        source = EventSource(fetch(server), 5.0)
        with closing(waiting.new_waiter()) as waiter, closing(source):
            assert b"".join(source.chunks(waiter)) == b"data: x\n\n"


def test_a_connection_is_reused_after_informational_responses():
    session = new_session()

    with WireServer([ALL + JSON]) as server:
        for _ in range(5):
            assert read(server, session=session) == {"a": 1}

        assert server.open_connections == 1


def test_informational_responses_are_skipped_over_tls(tmp_path):
    authority, serving = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    session = new_session(tls_context(str(tmp_path / "ca.pem")))

    with WireServer([EARLY_HINTS, 0.01, CONTINUE + JSON[:9], 0.01, JSON[9:]], tls=serving) as server:
        assert read(server, session=session) == {"a": 1}


REJECTED = {
    "one too many": EARLY_HINTS * (MAX_INFORMATIONAL + 1) + JSON,
    "endless ones": CONTINUE * 100_000,
    "a change of protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + JSON,
    "a change of protocol after others": ALL + b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + JSON,
    "a long head": b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n" + JSON,
    "an endless head": b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a.css>\r\n" * 10_000,
    "an endless final head": b"HTTP/1.1 200 OK\r\n" + b"Link: </a.css>\r\n" * 10_000,
}


@pytest.mark.parametrize("wire", REJECTED.values(), ids=REJECTED)
def test_endless_heads_and_changes_of_protocol_are_rejected_and_closed(wire):
    with WireServer([wire, HANG]) as server:
        with pytest.raises(UpstreamError):
            fetch(server)

        assert server.wait_for(lambda: server.open_connections == 0)


CUT_SHORT = {
    "before the final one": ALL,
    "in an informational one": ALL + EARLY_HINTS[:-2],
    "in the final status": b"HTTP/1.1 20",
    "in the final headers": JSON[: JSON.index(b"application")],
}


@pytest.mark.parametrize("wire", CUT_SHORT.values(), ids=CUT_SHORT)
def test_a_response_cut_in_its_head_is_unavailable(wire):
    with WireServer([wire, END]) as server, pytest.raises(UpstreamUnavailable):
        fetch(server)


def trickle(wire: bytes) -> Iterator[Any]:
    while True:
        for byte in wire:
            yield bytes([byte])
            yield 0.01


TRICKLES = {"informational ones": EARLY_HINTS, "one head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000}


@pytest.mark.parametrize("with_waiter", [True, False])
@pytest.mark.parametrize("wire", TRICKLES.values(), ids=TRICKLES)
def test_a_trickling_head_times_out(wire, with_waiter):
    with WireServer(lambda _: trickle(wire)) as server, closing(waiting.new_waiter()) as waiter:
        start = monotonic()
        with pytest.raises(UpstreamTimeout):
            fetch(server, seconds=0.2, waiter=waiter if with_waiter else None)

        assert 0.2 <= monotonic() - start < 2
        assert server.wait_for(lambda: server.open_connections == 0)


def test_a_disconnect_while_waiting_for_a_head_is_noticed():
    with WireServer(lambda _: trickle(EARLY_HINTS)) as server, closing(waiting.new_waiter()) as waiter:
        threading.Timer(0.1, waiter.cancel, [ClientDisconnected()]).start()
        with pytest.raises(ClientDisconnected):
            fetch(server, waiter=waiter)

        assert server.wait_for(lambda: server.open_connections == 0)


def test_a_connection_with_surplus_bytes_after_a_204_is_not_reused():
    session = new_session()

    with WireServer([b"HTTP/1.1 204 No Content\r\n\r\n" + JSON], [JSON]) as server:
        fetch(server, session=session).close()
        source = http.ByteStream(fetch(server, session=session), 5.0)
        source.close()

        assert len(server.requests) == 2
        assert server.wait_for(lambda: server.open_connections <= 1)


# All upstream services


def with_hints(request: Request) -> Iterator[bytes]:
    yield ALL
    if request.path.startswith("/api/v1/stream"):
        yield EARLY_HINTS + stream_head() + QUEUED + COMPLETED + LAST_CHUNK
    else:
        yield RECEIPT if request.method == "POST" else reply(b'{"messages":[],"entries":[],"total_count":0}')


def test_informational_responses_of_broker_and_engine_are_skipped():
    with WireServer(with_hints) as upstream:
        app = new_app(
            BROKER_BASE_URL=upstream.url, BROKER_API_KEY=BROKER_KEY, ENGINE_BASE_URL=upstream.url, ENGINE_API_KEY="key"
        )
        browser = app.test_client()
        response = browser.post("/api/chat/stream", json={"message": "hello"}, headers=ADA)

        assert '"complete"' in response.text
        assert browser.get("/api/chat/history", headers=ADA).json["entries"] == []
        assert browser.get("/api/chat/active", headers=ADA).json == {"messages": []}


def test_informational_responses_before_a_key_set_are_skipped():
    with WireServer([ALL + reply(b'{"keys":[]}')]) as issuer:
        app = new_app(AUTH_MODE="jwt", AUTH_JWT_JWKS_URL=issuer.url, AUTH_JWT_AUDIENCE="chat")
        token = jwt.encode({"sub": "ada"}, "s" * 32, "HS256")
        rejected = app.test_client().get("/api/chat/active", headers={"Authorization": f"Bearer {token}"})

        assert (rejected.status_code, len(issuer.requests)) == (401, 1)


@pytest.mark.live
def test_informational_responses_are_skipped_under_gevent_and_threads(start, kind):
    with WireServer(with_hints) as broker:
        server = start(kind, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
        with Browser(server).say("hello") as reply_stream:
            assert [event["type"] for event in reply_stream.events()] == ["status", "complete"]


@pytest.mark.live
def test_endless_informational_responses_do_not_block_other_streams(start, kind):
    def hints_for_one(request: Request) -> Iterator[Any]:
        return trickle(EARLY_HINTS) if b"hints" in request.body else with_hints(request)

    with WireServer(hints_for_one) as broker:
        server = start(kind, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, UPSTREAM_OPEN_SECONDS="1")
        replies = in_parallel(6, lambda number: Browser(server).say("hints only" if number else "hello").read())

    assert b'"complete"' in replies[0]
    assert all(b"upstream_timeout" in reply_body for reply_body in replies[1:])
