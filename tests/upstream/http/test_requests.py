import threading
from time import monotonic

import pytest

from bff.errors import ClientDisconnected, UpstreamError, UpstreamFailure, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.upstream import http
from bff.upstream.http import new_session
from tests.upstream.http.client import KEY, fetch
from tests.wire_server import CUT, END, HANG, WireServer, reply


def test_redirects_are_not_followed():
    with WireServer([reply()]) as elsewhere:
        redirect = reply(status="307 Temporary Redirect", Location=elsewhere.url)
        with WireServer([redirect]) as server:
            response = fetch(server.url, method="POST", body={"a": 1})

        assert response.status_code == 307
        assert server.requests[0].headers["x-api-key"] == KEY
        assert not elsewhere.requests


def test_identity_encoding_is_requested():
    with WireServer([reply(b"{}")]) as server:
        fetch(server.url).close()

        assert server.requests[0].headers["accept-encoding"] == "identity"


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
