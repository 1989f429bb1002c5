"""A service in this process, called through `requests` like a remote one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic

import pytest
from flask import Flask, Response, request

from bff.errors import ClientDisconnected, Draining, ServerRestarting, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, comment
from bff.http.streams import StreamLimiter
from bff.upstream.http import ByteStream, EventSource, InProcessService, new_session, read_json, send
from tests.live import DEADLINE


class Service:
    """A service whose `/stream` sends what `events` yields, and which records the keys it was built with."""

    def __init__(self, events=lambda waiter: [Event("", "a")], heartbeat_seconds: float = 60.0) -> None:
        self.keys: list[str] = []
        self.streams = StreamLimiter(100, 100)
        self.closed = threading.Event()
        self._events = events
        self._options = StreamOptions(comment("beat"), heartbeat_seconds)
        self.transport = InProcessService("service", self._app)

    def _app(self, key: str) -> Flask:
        self.keys.append(key)
        app = Flask(__name__)
        app.add_url_rule("/stream", view_func=self._stream)
        app.add_url_rule("/wait", view_func=self._wait)
        app.add_url_rule("/<path:path>", view_func=self._mirror, methods=["POST", "DELETE"])
        return app

    def _stream(self) -> Response:
        slot = self.streams.acquire("ann")
        return EventStream(self._events, self._options, environ=request.environ, slot=slot, close=self.closed.set)

    def _wait(self) -> str:
        with closing(waiting.new_waiter(waiting.client(request.environ))) as waiter:
            while True:
                waiter.wait()

    def _mirror(self, path: str) -> tuple[dict[str, str], int, dict[str, str]]:
        body, key = request.get_data(as_text=True), request.headers["X-API-Key"]
        return {"path": path, "query": request.args["q"], "key": key, "body": body}, 202, {"X-Method": request.method}

    def request(self, path: str = "/stream", method: str = "GET", seconds: float = DEADLINE, **options):
        deadline = monotonic() + seconds
        session, headers = new_session(to=self.transport), {"X-API-Key": self.transport.key}
        return send(session, method, self.transport.url + path, headers=headers, connect=1.0, deadline=deadline, **options)

    def open(self, silence: float = DEADLINE) -> EventSource:
        return EventSource(self.request(), silence)


def data(events) -> list[str]:
    return [event.data for event in events if event is not None]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def forever(waiter):
    """One event, then silence."""
    yield Event("", "first")
    while True:
        yield None
        waiter.wait()


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


def test_a_stream_that_ended_is_closed(waiter):
    service = Service(lambda _: [Event("word", "a", "1"), Event("", "b\nc"), None, Event("", "d")])

    with closing(service.open()) as source:
        events = [event for event in source.events(waiter) if event is not None]

    assert events == [Event("word", "a", "1"), Event("message", "b\nc", "1"), Event("message", "d", "1")]
    assert service.closed.is_set()
    assert len(service.streams) == 0


def test_a_stream_uses_no_file_descriptor(waiter):
    service = Service(forever)
    sources = [service.open()]
    before = descriptors()

    sources += [service.open() for _ in range(50)]
    texts = [data(islice(source.events(waiter), 2)) for source in sources]

    assert texts == [["first"]] * 51
    assert descriptors() < before + 50, "not exact: servers of other tests may still open and close some"
    for source in sources:
        source.close()


def test_the_reader_is_woken_at_its_wake_at(waiter):
    with closing(Service(forever).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]

        start = monotonic()
        waiter.wake_at = start + 0.2
        while monotonic() < waiter.wake_at:
            assert next(events) is None

    assert monotonic() - start < DEADLINE / 2


def test_wake_from_another_thread_wakes_the_stream(waiter):
    waiters = []

    def produce(waiter):
        waiters.append(waiter)
        yield Event("", "first")
        yield None
        waiter.wait()
        yield Event("", "second")

    with closing(Service(produce).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        threading.Timer(0.05, waiters[0].wake).start()

        assert data(events) == ["second"]


def test_wake_while_the_reader_is_busy_is_not_lost(waiter):
    waiters = []

    def produce(waiter):
        waiters.append(waiter)
        yield Event("", "first")
        yield None
        waiter.wait()
        yield Event("", "second")

    with closing(Service(produce).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        waiters[0].wake()

        assert data(events) == ["second"]


def test_the_services_heartbeats_are_received(waiter):
    with closing(Service(forever, heartbeat_seconds=0.05).open()) as source:
        chunks = [chunk for chunk in islice(source.chunks(waiter), 30) if chunk]

    assert b": beat\n\n" in chunks


def test_a_silent_stream_times_out(waiter):
    with closing(Service(forever).open(silence=0.2)) as source, pytest.raises(UpstreamTimeout):
        list(source.events(waiter))


@pytest.mark.parametrize(
    "reason", [ClientDisconnected(), Draining(), UpstreamTimeout()], ids=lambda reason: type(reason).__name__
)
def test_cancelling_the_reader_closes_the_stream_silently(waiter, reason, caplog):
    service = Service(forever)
    with closing(service.open()) as source:
        threading.Timer(0.05, waiter.cancel, [reason]).start()

        with pytest.raises(type(reason)):
            list(source.events(waiter))

    assert service.closed.is_set()
    assert caplog.records == []


def test_a_stream_that_the_service_drains_ends_cleanly(waiter):
    service = Service(forever)
    with closing(service.open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]

        threading.Thread(target=service.streams.drain, args=[0.1]).start()
        list(events)

    assert service.closed.is_set()


def test_an_aborted_stream_is_unavailable(waiter):
    def produce(waiter):
        yield Event("", "first")
        yield None
        waiter.abort()

    with closing(Service(produce).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        with pytest.raises(UpstreamUnavailable):
            list(events)


@pytest.mark.parametrize("started", [True, False])
def test_closing_the_source_closes_the_stream(waiter, started):
    service = Service(forever)
    source = service.open()
    if started:
        next(source.events(waiter))

    source.close()

    assert service.closed.is_set()
    assert len(service.streams) == 0


def test_a_stream_can_be_read_with_several_waiters(waiter):
    with (
        closing(waiting.new_waiter()) as first,
        closing(Service(lambda _: [Event("", "a"), None, Event("", "b")]).open()) as source,
    ):
        assert next(event for event in source.events(first) if event is not None).data == "a"

        assert data(source.events(waiter)) == ["b"]


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


def test_closing_a_stream_runs_its_generators_cleanup(waiter):
    is_running = threading.Event()

    def produce(waiter):
        is_running.set()
        try:
            yield from forever(waiter)
        finally:
            is_running.clear()

    source = Service(produce).open()
    events = source.events(waiter)
    assert data(islice(events, 2)) == ["first"]
    assert is_running.is_set()

    source.close()

    assert not is_running.is_set()


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


def test_a_stream_that_never_waits_does_not_block_other_threads(waiter):
    def produce(_):
        while not stop.is_set():
            yield Event("", "a")
            yield None

    stop = threading.Event()
    with closing(Service(produce).open()) as source:
        threading.Timer(0.01, stop.set).start()

        assert data(source.events(waiter))
