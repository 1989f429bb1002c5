"""Failures of the engine: every route maps them alike and passes on nothing of their text."""

import json

import pytest
import responses

from bff.upstream.http import JSON_MAX_BYTES
from tests.api.engine_requests import ENGINE, JSON_ROUTES, KEY, ROUTES, UNREACHABLE, client, code, send
from tests.wire_server import CUT, END, HANG, WireServer, reply

SECRET = "a-word-only-the-engine-knows"
STATUSES = [201, 202, 204, 206, 226, 300, 301, 302, 303, 304, 305, 307, 308]
STATUSES += [400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 415, 416, 418]
STATUSES += [421, 422, 425, 426, 428, 429, 431, 451]
STATUSES += [500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 599]
PASSED_ON = {400: (400, "invalid_request"), 429: (429, "too_many_requests")}
MISSING_USER = {"history": 200, "newest": 200, "preferences": 200, "audio": 404}

all_routes = pytest.mark.parametrize("route", ROUTES)
json_routes = pytest.mark.parametrize("route", JSON_ROUTES)


@pytest.fixture(scope="module")
def browser():
    return client()


@all_routes
@pytest.mark.parametrize("status", STATUSES)
@responses.activate
def test_a_status_of_the_engine_is_mapped_without_its_body(browser, route, status):
    body = json.dumps({"detail": SECRET, "error": SECRET, "code": SECRET, "response_language": SECRET})
    headers = {"Location": f"{ENGINE}/{SECRET}", "X-Secret": SECRET, "Set-Cookie": f"a={SECRET}"}
    responses.add(ROUTES[route].method, ENGINE + ROUTES[route].engine_path, body=body, status=status, headers=headers)

    response = send(browser, route)

    if status == 404 and MISSING_USER.get(route) == 200:
        assert response.status_code == 200
    elif status == 404 and route in MISSING_USER:
        assert code(response) == (404, "not_found")
    else:
        assert code(response) == PASSED_ON.get(status, (502, "upstream_error"))
    assert SECRET not in response.get_data(as_text=True) + str(response.headers)
    assert len(responses.calls) == 1, "no redirect is followed, nothing is retried"


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, {"retry_after_ms": 90_000}, "7"),
        ({}, {"code": "CONCURRENT_REQUEST_REJECTED", "retry_after_ms": 5000}, "5"),
        ({}, {"retry_after_ms": 1001}, "2"),
        ({}, {"retry_after_ms": 0}, "1"),
        ({}, {"retry_after_ms": 10**15}, "3600"),
        ({}, {"retry_after_ms": "soon"}, "5"),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, "5"),
        ({"Retry-After": "99999"}, {}, "3600"),
    ],
)
@all_routes
@responses.activate
def test_retry_after_of_a_busy_engine_is_passed_on(browser, route, headers, body, seconds):
    responses.add(ROUTES[route].method, ENGINE + ROUTES[route].engine_path, json=body, status=429, headers=headers)

    response = send(browser, route)

    assert code(response) == (429, "too_many_requests")
    assert response.headers["Retry-After"] == seconds


INVALID_JSON = {
    "HTML": b"<html>",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "deep nesting": b"[" * 100_000,
    "invalid UTF-8": b'{"a": "\xff"}',
    "half of it": b'{"entries": [',
    "a number no browser reads": b'{"responses": [], "entries": [], "total_count": 0, "x": NaN}',
    "a number that is too large": b'{"responses": [], "entries": [], "total_count": 0, "x": 1e999}',
    "too much": b'{"x": "' + b"x" * (JSON_MAX_BYTES * 17) + b'"}',
}


@json_routes
@pytest.mark.parametrize("body", INVALID_JSON.values(), ids=INVALID_JSON)
def test_invalid_json_is_an_error(browser, route, body):
    with responses.RequestsMock() as engine:
        engine.add(ROUTES[route].method, ENGINE + ROUTES[route].engine_path, body=body)

        assert code(send(browser, route)) == (502, "upstream_error")


INVALID_CONTENT = {
    "chat": [{}, {"responses": None}, {"responses": "x"}, {"responses": [1]}, {"response": {"responses": ["x"]}}],
    "history": [
        {},
        {"entries": [], "total_count": "0"},
        {"entries": {}, "total_count": 0},
        {"entries": [1], "total_count": 1},
        {"entries": []},
        {"entries": [], "total_count": True},
    ],
}


@pytest.mark.parametrize(
    ("route", "content"), [(route, content) for route in INVALID_CONTENT for content in INVALID_CONTENT[route]]
)
def test_unexpected_json_is_an_error(browser, route, content):
    with responses.RequestsMock() as engine:
        engine.add(ROUTES[route].method, ENGINE + ROUTES[route].engine_path, json=content)

        assert code(send(browser, route)) == (502, "upstream_error")


# Timeouts, on real sockets


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
STALLS = {
    "says nothing": [HANG],
    "stops in its headers": [HEAD[:40], HANG],
    "stops before its body": [HEAD, HANG],
    "stops in its body": [HEAD + b'{"responses": [', HANG],
    "trickles": [HEAD, *[step for _ in range(90) for step in (b" ", 0.1)], HANG],
}


@json_routes
@pytest.mark.parametrize("steps", STALLS.values(), ids=STALLS)
def test_a_stalled_engine_times_out_and_is_closed(route, steps):
    with WireServer(steps) as engine:
        assert code(send(client(engine.url, ENGINE_SECONDS="0.3"), route)) == (504, "upstream_timeout")

        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@pytest.mark.parametrize("steps", [STALLS["says nothing"], STALLS["stops in its headers"]])
def test_a_recording_that_does_not_start_times_out(steps):
    with WireServer(steps) as engine:
        assert code(send(client(engine.url, UPSTREAM_OPEN_SECONDS="0.3"), "audio")) == (504, "upstream_timeout")

        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@all_routes
def test_an_unreachable_engine_is_unavailable(route):
    response = send(client(UNREACHABLE), route)

    assert code(response) == (503, "upstream_unavailable")
    assert response.headers["Retry-After"]


@json_routes
@pytest.mark.parametrize("steps", [[CUT], [END], [HEAD, CUT], [HEAD + b"{", END]], ids=["reset", "closed", "cut", "short"])
def test_a_broken_connection_is_unavailable(route, steps):
    with WireServer(steps) as engine:
        assert code(send(client(engine.url), route)) == (503, "upstream_unavailable")


@all_routes
def test_redirects_are_not_followed(route):
    with WireServer([reply(b"{}")]) as elsewhere:
        with WireServer([reply(b"{}", status="307 Temporary Redirect", Location=elsewhere.url)]) as engine:
            assert code(send(client(engine.url), route)) == (502, "upstream_error")

        assert engine.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert not elsewhere.requests


@all_routes
@responses.activate
def test_engine_requests_are_limited_apart_from_streams(route):
    browser = client(MAX_STREAMS_PER_USER="1")
    streams = browser.application.extensions["chat_bff"].streams

    with streams.acquire("ada\0") as slot:
        assert code(send(browser, route)) == (429, "too_many_requests")
        slot.release()
    with streams.acquire("ada") as slot:
        responses.add(ROUTES[route].method, ENGINE + ROUTES[route].engine_path, status=500)
        assert code(send(browser, route)) == (502, "upstream_error")
        assert len(streams) == 1, "its slot is released"
        slot.release()
