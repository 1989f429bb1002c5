"""Requests to a service in this process."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import monotonic

import pytest
from flask import Flask, Response, request

from bff.errors import ClientDisconnected, Draining, ServerRestarting, UpstreamTimeout, UpstreamUnavailable
from bff.upstream.http import ByteStream, InProcessService, new_session, read_json, send
from tests.live import DEADLINE
from tests.upstream.http.in_process_service import Service


def test_requests_and_responses_are_the_same_as_over_a_socket():
    service = Service()

    response = service.request("/a%2Fb/%C3%A9", "POST", params={"q": "1&2 é"}, body={"text": "日本"})

    assert (response.status_code, response.reason, response.headers["x-method"]) == (202, "ACCEPTED", "POST")
    assert response.headers["Content-Type"] == "application/json"
    assert read_json(response, monotonic() + 5) == {
        "path": "a/b/é",
        "query": "1&2 é",
        "key": service.transport.key,
        "body": '{"text":"\\u65e5\\u672c"}',
    }


@pytest.mark.parametrize("value", ["é".encode(), "é-日本".encode()])
def test_header_bytes_arrive_unchanged(value):
    received = []
    service = Service()
    service.transport.app.before_request(lambda: received.append(request.environ["HTTP_X_BYTES"]))
    session = new_session(to=service.transport)
    headers: dict[str, str | bytes] = {"X-API-Key": "", "X-Bytes": value}

    send(session, "GET", service.transport.url, headers=headers, connect=1.0, deadline=monotonic() + 5)

    assert [text.encode("latin-1") for text in received] == [value]


def test_a_header_that_is_not_latin_1_is_rejected():
    service = Service()

    with pytest.raises(UpstreamUnavailable):
        send(
            new_session(to=service.transport),
            "GET",
            service.transport.url,
            headers={"X": "日本"},
            connect=1.0,
            deadline=monotonic() + 5,
        )


def test_the_app_is_built_once_at_the_first_request():
    service = Service()
    assert service.keys == []

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(service.request, "/x", "DELETE", params={"q": ""}) for _ in range(8)]
        assert {future.result(DEADLINE).status_code for future in futures} == {202}

    assert service.keys == [service.transport.key]
    assert len(service.transport.key) >= 32
    assert service.transport.key != Service().transport.key


def test_building_the_app_is_retried_after_a_failure():
    results = iter([OSError("not yet"), None])

    def factory(key: str) -> Flask:
        if problem := next(results):
            raise problem
        return Flask(__name__)

    transport = InProcessService("late", factory)

    def fetch() -> int:
        session = new_session(to=transport)
        return send(session, "GET", transport.url, headers={}, connect=1.0, deadline=monotonic() + 5).status_code

    with pytest.raises(UpstreamUnavailable):
        fetch()

    assert fetch() == 404


def test_a_response_that_never_starts_times_out():
    with pytest.raises(UpstreamTimeout):
        Service().request("/wait", seconds=0.2)


@pytest.mark.parametrize(
    "reason", [ClientDisconnected(), Draining(), ServerRestarting()], ids=lambda reason: type(reason).__name__
)
def test_waiting_for_a_response_can_be_cancelled(waiter, reason):
    threading.Timer(0.05, waiter.cancel, [reason]).start()

    with pytest.raises(type(reason)):
        Service().request("/wait", waiter=waiter)


def test_wake_at_is_suspended_while_waiting_for_a_response(waiter):
    waiter.wake_at = monotonic() - 1

    with pytest.raises(UpstreamTimeout):
        Service().request("/wait", seconds=0.2, waiter=waiter)

    assert waiter.wake_at < monotonic()


def test_a_response_of_known_length_is_read(waiter):
    content = bytes(range(256)) * 1024
    transport = InProcessService(
        "sound", lambda _: lambda environ, start: Response(content, content_type="audio/wav")(environ, start)
    )
    session = new_session(to=transport)

    response = send(session, "GET", transport.url, headers={}, connect=1.0, deadline=monotonic() + DEADLINE, waiter=waiter)
    with closing(ByteStream(response, DEADLINE)) as source:
        assert (source.size, source.header("Content-Type")) == (len(content), "audio/wav")
        assert b"".join(source.chunks(waiter)) == content
