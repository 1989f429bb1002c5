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


def ask(url, session=None, method="GET", seconds=5.0, **options):
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
def test_a_stream_arrives_whole_in_every_framing(steps):
    with WireServer(steps) as server:
        assert read(EventSource(ask(server.url), 5.0)) == DATA


def test_a_chunked_stream_arrives_whole_wherever_its_bytes_are_cut():
    wire = b"".join(map(chunk, pieces(DATA[:300], 7))) + LAST_CHUNK
    dice = random.Random(1)

    for _ in range(30):
        edges = [0, *sorted(dice.randint(0, len(wire)) for _ in range(5)), len(wire)]
        parts = [part for a, b in pairwise(edges) for part in (wire[a:b], 0.001)]
        with WireServer([stream_head(), *parts]) as server:
            assert read(EventSource(ask(server.url), 5.0)) == DATA[:300], edges


def test_a_stream_of_no_bytes_ends_cleanly():
    with WireServer([stream_head(chunked=False, Content_Length="0"), HANG]) as server:
        assert read(EventSource(ask(server.url), 5.0)) == b""


def test_what_has_come_is_given_at_once():
    more = threading.Event()
    waiter = waiting.new_waiter()

    with WireServer([stream_head() + b"b\r\ndata: first", b"\r\n", more, chunk(b"\n\n"), LAST_CHUNK]) as server:
        chunks = EventSource(ask(server.url), 5.0).chunks(waiter)
        first = next(piece for piece in chunks if piece)
        more.set()
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
def test_a_stream_that_is_cut_is_unavailable(steps):
    with WireServer(steps) as server, pytest.raises(UpstreamUnavailable):
        read(EventSource(ask(server.url), 5.0))


def test_a_stream_that_falls_silent_times_out():
    with WireServer([stream_head(), chunk(b"data: x\n\n"), HANG]) as server:
        with pytest.raises(UpstreamTimeout):
            read(EventSource(ask(server.url), 0.1))

        assert server.wait_for(lambda: server.hung_up == 1)


def test_pings_keep_a_stream_from_timing_out():
    pings = [step for _ in range(8) for step in (0.05, chunk(b": ping\n\n"))]

    with WireServer([stream_head(), *pings, LAST_CHUNK]) as server:
        assert read(EventSource(ask(server.url), 0.2)) == b": ping\n\n" * 8


def test_a_chunk_is_empty_when_the_watch_woke_for_something_else():
    waiter = waiting.new_waiter()
    waiter.wake_at = monotonic() + 0.05

    with WireServer([stream_head(), HANG]) as server:
        source = EventSource(ask(server.url), 5.0)
        assert next(source.chunks(waiter)) == b""

        source.close()
        assert server.wait_for(lambda: server.hung_up == 1)
    waiter.close()


REFUSED = {
    "compressed": stream_head(Content_Encoding="gzip"),
    "JSON": stream_head("application/json"),
    "HTML": stream_head("text/html"),
    "no type": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED)
def test_an_answer_that_is_no_plain_event_stream_is_refused_and_closed(head):
    with WireServer([head, HANG]) as server:
        with pytest.raises(UpstreamError):
            EventSource(ask(server.url), 5.0)

        assert server.wait_for(lambda: server.hung_up == 1)


def first_event(source: EventSource) -> Event | None:
    with closing(waiting.new_waiter()) as waiter:
        waiter.wake_at = monotonic() + 5
        return next((event for event in source.events(waiter) if event is not None or monotonic() >= waiter.wake_at), None)


def test_a_stream_that_has_ended_gives_its_connection_to_the_next():
    session = new_session()

    with WireServer([stream_head(), chunk(DATA), LAST_CHUNK]) as server:
        for _ in range(3):
            assert read(EventSource(ask(server.url, session), 5.0)) == DATA

        assert (len(server.requests), server.open_connections) == (3, 1)


def test_a_stream_left_in_the_middle_gives_its_connection_to_nobody():
    session = new_session()

    with WireServer([stream_head(), chunk(DATA), HANG], [reply(b"{}")]) as server:
        source = EventSource(ask(server.url, session), 5.0)
        first_event(source)
        source.close()

        assert http.read_json(ask(server.url, session), monotonic() + 5) == {}
        assert server.wait_for(lambda: server.hung_up == 1)


def test_an_address_is_not_looked_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("an address was looked up"))

    with WireServer([reply(b"{}")]) as server:
        ask(server.url.replace("localhost", "127.0.0.1")).close()


def test_a_reader_that_took_its_time_is_no_silence():
    waiter = waiting.new_waiter()
    more = threading.Event()

    with WireServer([stream_head(), chunk(b"data: a\n\n"), more, 0.05, chunk(b"data: b\n\n"), LAST_CHUNK]) as server:
        chunks = EventSource(ask(server.url), 0.5).chunks(waiter)
        first = next(chunk for chunk in chunks if chunk)
        more.wait(0.6)  # Nobody sets it: the reader takes longer than there may be silence.
        more.set()
        rest = b"".join(chunks)

    waiter.close()
    assert (first, rest) == (b"data: a\n\n", b"data: b\n\n")


def test_a_reader_that_left_ends_the_reading():
    waiter = waiting.new_waiter()

    with WireServer([stream_head(), HANG]) as server:
        threading.Timer(0.05, waiter.cancel, [ClientDisconnected()]).start()
        with pytest.raises(ClientDisconnected):
            read(EventSource(ask(server.url), 30.0), waiter)

        assert server.wait_for(lambda: server.hung_up == 1)
    waiter.close()


@responses.activate
def test_a_double_of_the_library_can_be_read_too():
    responses.get("http://engine.test/", body=DATA, content_type="text/event-stream")

    assert read(EventSource(ask("http://engine.test/"), 5.0)) == DATA


# Requests


def test_a_key_goes_to_the_service_and_no_further():
    with WireServer([reply()]) as elsewhere:
        redirect = reply(status="307 Temporary Redirect", Location=elsewhere.url)
        with WireServer([redirect]) as server:
            response = ask(server.url, method="POST", body={"a": 1})

        assert response.status_code == 307
        assert server.requests[0].headers["x-api-key"] == KEY
        assert not elsewhere.requests


def test_a_cookie_set_for_one_user_is_not_sent_with_anothers_request():
    session = new_session()

    with WireServer([reply(b"{}", Set_Cookie="sticky=1; Path=/")], [reply(b"{}")]) as server:
        for _ in range(2):
            http.read_json(ask(server.url, session), monotonic() + 5)

        assert "cookie" not in server.requests[1].headers


def test_neither_netrc_nor_a_proxy_of_the_environment_is_asked(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine localhost login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    with WireServer([reply(b"{}")]) as server:
        ask(server.url).close()

        assert "authorization" not in server.requests[0].headers


def test_plain_bytes_are_asked_for():
    with WireServer([reply(b"{}")]) as server:
        ask(server.url).close()

        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_connection_serves_one_request_after_the_other():
    session = new_session()

    with WireServer([reply(b'{"a": 1}')]) as server:
        for _ in range(5):
            assert http.read_json(ask(server.url, session), monotonic() + 5) == {"a": 1}

        assert server.open_connections == 1


DEAD = {
    "hangs up": ([END], UpstreamUnavailable),
    "resets": ([CUT], UpstreamUnavailable),
    "says nothing": ([HANG], UpstreamTimeout),
    "speaks no HTTP": ([b"SSH-2.0-OpenSSH\r\n\r\n"], UpstreamUnavailable),
    "never ends its headers": ([b"HTTP/1.1 200 OK\r\nX: ", HANG], UpstreamTimeout),
}


@pytest.mark.parametrize(("steps", "problem"), DEAD.values(), ids=DEAD)
def test_a_service_that_does_not_answer_is_an_error_of_ours(steps, problem):
    with WireServer(steps) as server, pytest.raises(problem) as raised:
        ask(server.url, seconds=0.2)

    assert KEY not in raised.value.detail
    assert KEY not in str(raised.value)


def test_a_service_that_is_not_there_is_unavailable():
    with WireServer([END]) as server:
        url = server.url

    with pytest.raises(UpstreamUnavailable):
        ask(url)


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "\u2028"])
def test_a_key_that_is_no_header_is_an_error_of_ours(key):
    with WireServer([reply()]) as server, pytest.raises(UpstreamFailure):
        http.send(new_session(), "GET", server.url, headers={"X-API-Key": key}, connect=1, deadline=monotonic() + 1)


BAD_JSON = {
    "HTML": reply(b"<html>"),
    "a list": reply(b"[]"),
    "nothing": reply(b""),
    "deep nesting": reply(b"[" * 100_000),
    "invalid UTF-8": reply(b'"\xff"'),
    "a number that is none": reply(b'{"a": NaN}'),
    "a number without end": reply(b'{"a": -1e999}'),
    "compressed": reply(b"{}", Content_Encoding="gzip"),
    "too much": reply(b'{"a": "' + b"x" * 2**20 + b'"}'),
}


@pytest.mark.parametrize("answer", BAD_JSON.values(), ids=BAD_JSON)
def test_an_answer_that_is_no_small_json_object_is_an_error(answer):
    with WireServer([answer]) as server, pytest.raises(UpstreamError):
        http.read_json(ask(server.url), monotonic() + 5)


def test_an_answer_that_is_cut_is_unavailable():
    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", END]) as server, pytest.raises(UpstreamUnavailable):
        http.read_json(ask(server.url), monotonic() + 5)


def test_an_answer_that_trickles_is_given_up_in_time():
    trickle = [step for _ in range(100) for step in (b" ", 0.05)]
    began = monotonic()

    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", *trickle]) as server, pytest.raises(UpstreamTimeout):
        http.read_json(ask(server.url, seconds=5), began + 0.3)

    assert monotonic() - began < 2


@pytest.mark.parametrize("body", [b"", b'{"a"'], ids=["before its body", "in its body"])
def test_an_answer_that_stops_is_a_timeout_at_its_moment(body):
    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + body, HANG]) as server:
        response = ask(server.url, seconds=60)
        with pytest.raises(UpstreamTimeout):
            http.read_json(response, monotonic() + 0.2)

        assert server.wait_for(lambda: server.hung_up == 1, 15)


def test_an_answer_that_nobody_waits_for_any_more_is_let_go():
    waiter = waiting.new_waiter()

    with WireServer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", HANG]) as server:
        response = ask(server.url)
        threading.Timer(0.05, waiter.cancel, [ClientDisconnected()]).start()
        with pytest.raises(ClientDisconnected):
            http.read_json(response, monotonic() + 60, waiter)

        assert server.wait_for(lambda: server.hung_up == 1, 15)
    waiter.close()


def test_an_answer_may_be_larger_where_it_is_said_so():
    with WireServer([reply(b'{"a": "' + b"x" * 2**21 + b'"}')]) as server:
        content = http.read_json(ask(server.url), monotonic() + 20, most=2**22)

    assert len(content["a"]) == 2**21


def test_a_connection_that_says_more_than_was_asked_for_serves_nobody_else():
    session = new_session()

    with WireServer([reply(b"{}") + b"HTTP/1.1 200 OK\r\n"]) as server:
        for _ in range(2):
            assert http.read_json(ask(server.url, session), monotonic() + 5) == {}

        assert server.wait_for(lambda: server.open_connections == 0, 15)


# TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(authority, tmp_path):
    """A session that trusts the authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return new_session(tls_context(str(tmp_path / "ca.pem")))


@pytest.fixture
def serving(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_a_stream_arrives_whole_over_tls(trusting, serving):
    big = b"data: " + b"x" * 200_000 + b"\n\n"
    steps = [stream_head(), chunk(big), 0.05, *map(chunk, pieces(DATA, 777)), LAST_CHUNK]

    with WireServer(steps, tls=serving) as server:
        assert read(EventSource(ask(server.url, trusting), 5.0)) == big + DATA


def test_what_comes_with_the_headers_is_given_at_once_over_tls(trusting, serving):
    data = b"data: " + b"x" * 12_000 + b"\n\n"

    with WireServer([stream_head() + chunk(data), HANG], tls=serving) as server:
        source = EventSource(ask(server.url, trusting), 60.0)
        event = first_event(source)
        source.close()

    assert event is not None
    assert len(event.data) == 12_000


def test_an_answer_that_does_not_come_is_waited_for_at_the_watch(trusting, serving):
    for tls, session in ((None, new_session()), (serving, trusting)):
        waiter = waiting.new_waiter()
        with WireServer([HANG], tls=tls) as server:
            threading.Timer(0.1, waiter.cancel, [ClientDisconnected()]).start()
            began = monotonic()
            with pytest.raises(ClientDisconnected):
                ask(server.url, session, seconds=10, waiter=waiter)

            assert monotonic() - began < 2
            assert server.wait_for(lambda: server.hung_up == 1)
        waiter.close()


def test_a_certificate_nobody_vouches_for_is_refused(serving):
    with WireServer([reply()], tls=serving) as server, pytest.raises(UpstreamUnavailable):
        ask(server.url)


def test_a_certificate_for_another_host_is_refused(trusting, serving):
    with WireServer([reply()], tls=serving) as server, pytest.raises(UpstreamUnavailable):
        ask(server.url.replace("localhost", "127.0.0.1"), trusting)

    assert not server.requests


def test_all_connections_share_one_tls_context(trusting, serving, monkeypatch):
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: loaded.append(1))

    with WireServer([reply(b"{}"), END], tls=serving) as server:
        in_parallel(5, lambda _: ask(server.url, trusting).close())

    assert not loaded, "the CA bundle was parsed again for a connection"
