"""What all doors to the engine have in common: how its failures are told, and that nothing it says of them leaves."""

import json

import pytest
import responses

from bff.upstream.http import JSON_MAX_BYTES
from tests.api.engine_requests import DOORS, ENGINE, JSON_DOORS, KEY, NOBODY, client, code, knock
from tests.wire_server import CUT, END, HANG, WireServer, reply

SECRET = "a-word-only-the-engine-knows"
STATUSES = [201, 202, 204, 206, 226, 300, 301, 302, 303, 304, 305, 307, 308]
STATUSES += [400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 415, 416, 418]
STATUSES += [421, 422, 425, 426, 428, 429, 431, 451]
STATUSES += [500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 599]
SPECIAL = {400: (400, "invalid_request"), 429: (429, "too_many_requests")}
NOT_THERE = {"history": 200, "newest": 200, "preferences": 200, "audio": 404}

all_doors = pytest.mark.parametrize("door", DOORS)
json_doors = pytest.mark.parametrize("door", JSON_DOORS)


@pytest.fixture(scope="module")
def browser():
    return client()


@all_doors
@pytest.mark.parametrize("status", STATUSES)
@responses.activate
def test_whatever_the_engine_answers_has_one_meaning_and_none_of_its_words(browser, door, status):
    body = json.dumps({"detail": SECRET, "error": SECRET, "code": SECRET, "response_language": SECRET})
    headers = {"Location": f"{ENGINE}/{SECRET}", "X-Secret": SECRET, "Set-Cookie": f"a={SECRET}"}
    responses.add(DOORS[door].method, ENGINE + DOORS[door].engine_path, body=body, status=status, headers=headers)

    response = knock(browser, door)

    if status == 404 and NOT_THERE.get(door) == 200:
        assert response.status_code == 200
    elif status == 404 and door in NOT_THERE:
        assert code(response) == (404, "not_found")
    else:
        assert code(response) == SPECIAL.get(status, (502, "upstream_error"))
    assert SECRET not in response.get_data(as_text=True) + str(response.headers)
    assert len(responses.calls) == 1, "no redirect is followed, nothing is asked again"


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
@all_doors
@responses.activate
def test_a_busy_engine_says_when_to_come_back(browser, door, headers, body, seconds):
    responses.add(DOORS[door].method, ENGINE + DOORS[door].engine_path, json=body, status=429, headers=headers)

    response = knock(browser, door)

    assert code(response) == (429, "too_many_requests")
    assert response.headers["Retry-After"] == seconds


NO_OBJECT = {
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


@json_doors
@pytest.mark.parametrize("body", NO_OBJECT.values(), ids=NO_OBJECT)
def test_an_answer_that_is_none_is_an_error(browser, door, body):
    with responses.RequestsMock() as engine:
        engine.add(DOORS[door].method, ENGINE + DOORS[door].engine_path, body=body)

        assert code(knock(browser, door)) == (502, "upstream_error")


NO_ANSWERS = {
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


@pytest.mark.parametrize(("door", "content"), [(door, content) for door in NO_ANSWERS for content in NO_ANSWERS[door]])
def test_an_object_of_another_kind_is_an_error(browser, door, content):
    with responses.RequestsMock() as engine:
        engine.add(DOORS[door].method, ENGINE + DOORS[door].engine_path, json=content)

        assert code(knock(browser, door)) == (502, "upstream_error")


# Time, on real sockets


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
HALF_DEAD = {
    "says nothing": [HANG],
    "stops in its headers": [HEAD[:40], HANG],
    "stops before its body": [HEAD, HANG],
    "stops in its body": [HEAD + b'{"responses": [', HANG],
    "trickles": [HEAD, *[step for _ in range(90) for step in (b" ", 0.1)], HANG],
}


@json_doors
@pytest.mark.parametrize("steps", HALF_DEAD.values(), ids=HALF_DEAD)
def test_an_engine_that_is_silent_is_given_up_in_time_and_let_go(door, steps):
    with WireServer(steps) as engine:
        assert code(knock(client(engine.url, ENGINE_SECONDS="0.3"), door)) == (504, "upstream_timeout")

        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@pytest.mark.parametrize("steps", [HALF_DEAD["says nothing"], HALF_DEAD["stops in its headers"]])
def test_a_recording_that_does_not_begin_is_given_up_in_time(steps):
    with WireServer(steps) as engine:
        assert code(knock(client(engine.url, UPSTREAM_OPEN_SECONDS="0.3"), "audio")) == (504, "upstream_timeout")

        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@all_doors
def test_an_engine_that_is_not_there_cannot_be_reached(door):
    response = knock(client(NOBODY), door)

    assert code(response) == (503, "upstream_unavailable")
    assert response.headers["Retry-After"]


@json_doors
@pytest.mark.parametrize("steps", [[CUT], [END], [HEAD, CUT], [HEAD + b"{", END]], ids=["reset", "closed", "cut", "short"])
def test_an_engine_that_breaks_off_is_unavailable(door, steps):
    with WireServer(steps) as engine:
        assert code(knock(client(engine.url), door)) == (503, "upstream_unavailable")


@all_doors
def test_a_redirect_is_not_followed_with_our_key(door):
    with WireServer([reply(b"{}")]) as elsewhere:
        with WireServer([reply(b"{}", status="307 Temporary Redirect", Location=elsewhere.url)]) as engine:
            assert code(knock(client(engine.url), door)) == (502, "upstream_error")

        assert engine.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert not elsewhere.requests


@all_doors
@responses.activate
def test_a_user_of_many_slow_requests_is_slowed_down_and_may_still_chat(door):
    browser = client(MAX_STREAMS_PER_USER="1")
    streams = browser.application.extensions["chat_bff"].streams

    with streams.acquire("ada\0") as slot:
        assert code(knock(browser, door)) == (429, "too_many_requests")
        slot.release()
    with streams.acquire("ada") as slot:
        responses.add(DOORS[door].method, ENGINE + DOORS[door].engine_path, status=500)
        assert code(knock(browser, door)) == (502, "upstream_error")
        assert len(streams) == 1, "a place is given back"
        slot.release()
