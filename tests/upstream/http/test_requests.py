import random
import socket
import ssl
import threading
from contextlib import closing
from itertools import pairwise
from time import monotonic

import pytest
import responses
import trustme

from bff.errors import ClientDisconnected, UpstreamError, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.http.sse import Event
from bff.upstream import http
from bff.upstream.http import EventSource, new_session, tls_context
from tests.live import in_parallel
from tests.wire_server import CUT, END, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

KEY = "the-key-that-must-not-leave"
DATA = b"data: hello\n\n" * 1000


def fetch(url, session=None, method="GET", seconds=5.0, **options):
    session = session or new_session()
    deadline = monotonic() + seconds
    return http.send(session, method, url, headers={"X-API-Key": KEY}, connect=1.0, deadline=deadline, **options)


def read(source: EventSource, waiter: waiting.Waiter | None = None) -> bytes:
    waiter = waiter or waiting.new_waiter()
    try:
        return b"".join(source.chunks(waiter))
    finally:
        source.close()
        waiter.close()


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# Streams


FRAMINGS = {
    "chunked": [stream_head(), *map(chunk, pieces(DATA, 777)), LAST_CHUNK],
    "with a length": [stream_head(chunked=False, Content_Length=str(len(DATA))), *pieces(DATA, 777)],
    "until the end": [stream_head(chunked=False, Connection="close"), *pieces(DATA, 777), END],
    "with long trailers": [stream_head(), chunk(DATA) + b"0\r\nTrailer: " + b"x" * 3000 + b"\r\n\r\n"],
    "with chunk extensions": [stream_head(), b"5;a=b\r\ndata:\r\n", chunk(DATA[5:]), b"0;x\r\nTrailer: y\r\n\r\n"],
}


@pytest.mark.parametrize("steps", FRAMINGS.values(), ids=FRAMINGS)
def test_streams_are_read_in_every_framing(steps):
    with WireServer(steps) as server:
        assert read(EventSource(fetch(server.url), 5.0)) == DATA


def test_a_chunked_stream_is_read_wherever_it_is_cut():
    wire = b"".join(map(chunk, pieces(DATA[:300], 7))) + LAST_CHUNK
    dice = random.Random(1)

    for _ in range(30):
        edges = [0, *sorted(dice.randint(0, len(wire)) for _ in range(5)), len(wire)]
        parts = [part for a, b in pairwise(edges) for part in (wire[a:b], 0.001)]
        with WireServer([stream_head(), *parts]) as server:
            assert read(EventSource(fetch(server.url), 5.0)) == DATA[:300], edges


def test_an_empty_stream_ends_cleanly():
    with WireServer([stream_head(chunked=False, Content_Length="0"), HANG]) as server:
        assert read(EventSource(fetch(server.url), 5.0)) == b""


def test_bytes_are_returned_as_soon_as_they_arrive():
    resume = threading.Event()
    waiter = waiting.new_waiter()

    with WireServer([stream_head() + b"b\r\ndata: first", b"\r\n", resume, chunk(b"\n\n"), LAST_CHUNK]) as server:
        chunks = EventSource(fetch(server.url), 5.0).chunks(waiter)
        first = next(piece for piece in chunks if piece)
        resume.set()
        rest = b"".join(chunks)

    waiter.close()
    assert (first, rest) == (b"data: first", b"\n\n")


CUTS = {
    "reset": [stream_head(), chunk(b"data: x\n\n"), CUT],
    "closed between chunks": [stream_head(), chunk(b"data: x\n\n"), END],
    "closed inside a chunk": [stream_head(), b"ff\r\ndata: x\n\n", END],
    "closed before its length": [stream_head(chunked=False, Content_Length="99"), b"data: x\n\n", END],
    "a bad chunk size": [stream_head(), b"zz\r\ndata: x\n\n\r\n", HANG],
    "a negative chunk size": [stream_head(), b"-5\r\ndata: x\n\n\r\n", HANG],
    "an endless chunk size": [stream_head(), b"0" * 5000, HANG],
}


@pytest.mark.parametrize("steps", CUTS.values(), ids=CUTS)
def test_an_incomplete_stream_is_unavailable(steps):
    with WireServer(steps) as server, pytest.raises(UpstreamUnavailable):
        read(EventSource(fetch(server.url), 5.0))


def test_a_silent_stream_times_out():
    with WireServer([stream_head(), chunk(b"data: x\n\n"), HANG]) as server:
        with pytest.raises(UpstreamTimeout):
            read(EventSource(fetch(server.url), 0.1))

        assert server.wait_for(lambda: server.hung_up == 1)


def test_pings_prevent_a_timeout():
    pings = [step for _ in range(8) for step in (0.05, chunk(b": ping\n\n"))]

    with WireServer([stream_head(), *pings, LAST_CHUNK]) as server:
        assert read(EventSource(fetch(server.url), 0.2)) == b": ping\n\n" * 8


def test_a_chunk_is_empty_when_the_waiter_woke_for_another_reason():
    waiter = waiting.new_waiter()
    waiter.wake_at = monotonic() + 0.05

    with WireServer([stream_head(), HANG]) as server:
        source = EventSource(fetch(server.url), 5.0)
        assert next(source.chunks(waiter)) == b""

        source.close()
        assert server.wait_for(lambda: server.hung_up == 1)
    waiter.close()


REJECTED = {
    "compressed": stream_head(Content_Encoding="gzip"),
    "JSON": stream_head("application/json"),
    "HTML": stream_head("text/html"),
    "no type": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("head", REJECTED.values(), ids=REJECTED)
def test_a_response_that_is_no_plain_event_stream_is_rejected_and_closed(head):
    with WireServer([head, HANG]) as server:
        with pytest.raises(UpstreamError):
            EventSource(fetch(server.url), 5.0)

        assert server.wait_for(lambda: server.hung_up == 1)


def first_event(source: EventSource) -> Event | None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.wake_at = monotonic() + 5
        return next((event for event in source.events(waiter) if event is not None or monotonic() >= waiter.wake_at), None)


def test_the_connection_of_an_ended_stream_is_reused():
    session = new_session()

    with WireServer([stream_head(), chunk(DATA), LAST_CHUNK]) as server:
        for _ in range(3):
            assert read(EventSource(fetch(server.url, session), 5.0)) == DATA

        assert (len(server.requests), server.open_connections) == (3, 1)


def test_the_connection_of_an_unfinished_stream_is_closed():
    session = new_session()

    with WireServer([stream_head(), chunk(DATA), HANG], [reply(b"{}")]) as server:
        source = EventSource(fetch(server.url, session), 5.0)
        first_event(source)
        source.close()

        assert http.read_json(fetch(server.url, session), monotonic() + 5) == {}
        assert server.wait_for(lambda: server.hung_up == 1)


def test_an_ip_address_is_not_looked_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("an address was looked up"))

    with WireServer([reply(b"{}")]) as server:
        fetch(server.url.replace("localhost", "127.0.0.1")).close()


def test_the_readers_own_time_does_not_count_as_silence():
    waiter = waiting.new_waiter()
    resume = threading.Event()

    with WireServer([stream_head(), chunk(b"data: a\n\n"), resume, 0.05, chunk(b"data: b\n\n"), LAST_CHUNK]) as server:
        chunks = EventSource(fetch(server.url), 0.5).chunks(waiter)
        first = next(chunk for chunk in chunks if chunk)
        resume.wait(0.6)  # Not set here: the reader takes longer than the silence timeout.
        resume.set()
        rest = b"".join(chunks)

    waiter.close()
    assert (first, rest) == (b"data: a\n\n", b"data: b\n\n")


def test_cancelling_the_waiter_ends_a_read():
    waiter = waiting.new_waiter()

    with WireServer([stream_head(), HANG]) as server:
        threading.Timer(0.05, waiter.cancel, [ClientDisconnected()]).start()
        with pytest.raises(ClientDisconnected):
            read(EventSource(fetch(server.url), 30.0), waiter)

        assert server.wait_for(lambda: server.hung_up == 1)
    waiter.close()


@responses.activate
def test_a_response_mocked_by_responses_can_be_read():
    responses.get("http://engine.test/", body=DATA, content_type="text/event-stream")

    assert read(EventSource(fetch("http://engine.test/"), 5.0)) == DATA


# Requests


def test_redirects_are_not_followed():
    with WireServer([reply()]) as elsewhere:
        redirect = reply(status="307 Temporary Redirect", Location=elsewhere.url)
        with WireServer([redirect]) as server:
            response = fetch(server.url, method="POST", body={"a": 1})

        assert response.status_code == 307
        assert server.requests[0].headers["x-api-key"] == KEY
        assert not elsewhere.requests


def test_cookies_are_not_kept():
    session = new_session()

    with WireServer([reply(b"{}", Set_Cookie="sticky=1; Path=/")], [reply(b"{}")]) as server:
        for _ in range(2):
            http.read_json(fetch(server.url, session), monotonic() + 5)

        assert "cookie" not in server.requests[1].headers


def test_netrc_and_environment_proxies_are_ignored(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine localhost login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    with WireServer([reply(b"{}")]) as server:
        fetch(server.url).close()

        assert "authorization" not in server.requests[0].headers


def test_identity_encoding_is_requested():
    with WireServer([reply(b"{}")]) as server:
        fetch(server.url).close()

        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_connection_is_reused():
    session = new_session()

    with WireServer([reply(b'{"a": 1}')]) as server:
        for _ in range(5):
            assert http.read_json(fetch(server.url, session), monotonic() + 5) == {"a": 1}

        assert server.open_connections == 1


FAILURES = {
    "disconnects": ([END], UpstreamUnavailable),
    "resets": ([CUT], UpstreamUnavailable),
    "sends nothing": ([HANG], UpstreamTimeout),
    "no HTTP": ([b"SSH-2.0-OpenSSH\r\n\r\n"], UpstreamUnavailable),
    "endless headers": ([b"HTTP/1.1 200 OK\r\nX: ", HANG], UpstreamTimeout),
}


@pytest.mark.parametrize(("steps", "problem"), FAILURES.values(), ids=FAILURES)
def test_failed_requests_raise_our_errors(steps, problem):
    with WireServer(steps) as server, pytest.raises(problem) as raised:
        fetch(server.url, seconds=0.2)

    assert KEY not in raised.value.detail
    assert KEY not in str(raised.value)


def test_a_refused_connection_is_unavailable():
    with WireServer([END]) as server:
        url = server.url

    with pytest.raises(UpstreamUnavailable):
        fetch(url)


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "\u2028"])
def test_an_invalid_header_raises_our_error(key):
    with WireServer([reply()]) as server, pytest.raises(UpstreamFailure):
        http.send(new_session(), "GET", server.url, headers={"X-API-Key": key}, connect=1, deadline=monotonic() + 1)


BAD_JSON = {
    "HTML": reply(b"<html>"),
    "a list": reply(b"[]"),
    "nothing": reply(b""),
    "deep nesting": reply(b"[" * 100_000),
    "invalid UTF-8": reply(b'"\xff"'),
    "not a number": reply(b'{"a": NaN}'),
    "an infinite number": reply(b'{"a": -1e999}'),
    "compressed": reply(b"{}", Content_Encoding="gzip"),
    "too much": reply(b'{"a": "' + b"x" * 2**20 + b'"}'),
}


@pytest.mark.parametrize("wire", BAD_JSON.values(), ids=BAD_JSON)
def test_a_response_that_is_no_small_json_object_is_an_error(wire):
    with WireServer([wire]) as server, pytest.raises(UpstreamError):
        http.read_json(fetch(server.url), monotonic() + 5)


def test_an_incomplete_response_is_unavailable():
    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", END]) as server, pytest.raises(UpstreamUnavailable):
        http.read_json(fetch(server.url), monotonic() + 5)


def test_a_trickling_response_times_out():
    trickle = [step for _ in range(100) for step in (b" ", 0.05)]
    start = monotonic()

    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", *trickle]) as server, pytest.raises(UpstreamTimeout):
        http.read_json(fetch(server.url, seconds=5), start + 0.3)

    assert monotonic() - start < 2


@pytest.mark.parametrize("body", [b"", b'{"a"'], ids=["before its body", "in its body"])
def test_a_stalled_response_times_out_at_its_deadline(body):
    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + body, HANG]) as server:
        response = fetch(server.url, seconds=60)
        with pytest.raises(UpstreamTimeout):
            http.read_json(response, monotonic() + 0.2)

        assert server.wait_for(lambda: server.hung_up == 1, 15)


def test_cancelling_the_waiter_closes_the_response():
    waiter = waiting.new_waiter()

    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", HANG]) as server:
        response = fetch(server.url)
        threading.Timer(0.05, waiter.cancel, [ClientDisconnected()]).start()
        with pytest.raises(ClientDisconnected):
            http.read_json(response, monotonic() + 60, waiter)

        assert server.wait_for(lambda: server.hung_up == 1, 15)
    waiter.close()


def test_the_size_limit_of_a_json_response_can_be_raised():
    with WireServer([reply(b'{"a": "' + b"x" * 2**21 + b'"}')]) as server:
        content = http.read_json(fetch(server.url), monotonic() + 20, max_bytes=2**22)

    assert len(content["a"]) == 2**21


def test_a_connection_with_surplus_bytes_is_not_reused():
    session = new_session()

    with WireServer([reply(b"{}") + b"HTTP/1.1 200 OK\r\n"]) as server:
        for _ in range(2):
            assert http.read_json(fetch(server.url, session), monotonic() + 5) == {}

        assert server.wait_for(lambda: server.open_connections == 0, 15)


# TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting_session(authority, tmp_path):
    """A session that trusts the authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return new_session(tls_context(str(tmp_path / "ca.pem")))


@pytest.fixture
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_a_stream_is_read_over_tls(trusting_session, server_tls):
    big = b"data: " + b"x" * 200_000 + b"\n\n"
    steps = [stream_head(), chunk(big), 0.05, *map(chunk, pieces(DATA, 777)), LAST_CHUNK]

    with WireServer(steps, tls=server_tls) as server:
        assert read(EventSource(fetch(server.url, trusting_session), 5.0)) == big + DATA


def test_bytes_that_arrive_with_the_headers_are_returned_at_once_over_tls(trusting_session, server_tls):
    data = b"data: " + b"x" * 12_000 + b"\n\n"

    with WireServer([stream_head() + chunk(data), HANG], tls=server_tls) as server:
        source = EventSource(fetch(server.url, trusting_session), 60.0)
        event = first_event(source)
        source.close()

    assert event is not None
    assert len(event.data) == 12_000


def test_waiting_for_a_response_can_be_cancelled(trusting_session, server_tls):
    for tls, session in ((None, new_session()), (server_tls, trusting_session)):
        waiter = waiting.new_waiter()
        with WireServer([HANG], tls=tls) as server:
            threading.Timer(0.1, waiter.cancel, [ClientDisconnected()]).start()
            start = monotonic()
            with pytest.raises(ClientDisconnected):
                fetch(server.url, session, seconds=10, waiter=waiter)

            assert monotonic() - start < 2
            assert server.wait_for(lambda: server.hung_up == 1)
        waiter.close()


def test_an_untrusted_certificate_is_rejected(server_tls):
    with WireServer([reply()], tls=server_tls) as server, pytest.raises(UpstreamUnavailable):
        fetch(server.url)


def test_a_certificate_for_another_host_is_rejected(trusting_session, server_tls):
    with WireServer([reply()], tls=server_tls) as server, pytest.raises(UpstreamUnavailable):
        fetch(server.url.replace("localhost", "127.0.0.1"), trusting_session)

    assert not server.requests


def test_all_connections_share_one_tls_context(trusting_session, server_tls, monkeypatch):
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: loaded.append(1))

    with WireServer([reply(b"{}"), END], tls=server_tls) as server:
        in_parallel(5, lambda _: fetch(server.url, trusting_session).close())

    assert not loaded, "the CA bundle was parsed again for a connection"
