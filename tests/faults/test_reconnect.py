"""Interruptions of a broker's stream with event ids: the browser sees no gap, no repetition and exactly one end."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from itertools import pairwise
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bff.upstream import reconnect
from tests.broker_responses import COMPLETE, RECEIPT
from tests.live import (
    ADA,
    BROKER_KEY,
    DEADLINE,
    Browser,
    content_of,
    eventually,
    id_of,
    in_parallel,
    last_of,
    new_app,
    status_of,
    take,
    text_of,
)
from tests.wire_server import CUT, END, HANG, LAST_CHUNK, Request, WireServer, chunk, reply, stream_head

TERMINAL = {"complete", "error", "stopped"}
WORDS = [f"word-{number} " for number in range(8)]


class BrokerEvent(NamedTuple):
    """An event of the broker."""

    event: str
    data: str


def progress(text: str) -> BrokerEvent:
    return BrokerEvent("message", json.dumps({"type": "progress", "text": text}))


REPLY_LOG = [
    BrokerEvent("queued", "{}"),
    BrokerEvent("processing", ""),
    *map(progress, WORDS),
    BrokerEvent("message", COMPLETE),
    BrokerEvent("done", "{}"),
]


class ScriptedConnection(NamedTuple):
    """One connection of the broker: the most bytes it sends, the size of the pieces, and how it ends."""

    max_bytes: int | None = None
    piece: int = 65536
    pause: float = 0.0
    ending: Any = LAST_CHUNK


class NumberedBroker:
    """Sends `log` from the last event id on; each request uses one of `connections`, the last one repeatedly."""

    def __init__(
        self,
        log: list[BrokerEvent],
        connections: list[ScriptedConnection],
        *,
        ids: bool = True,
        queue: bytes = reply(b'{"messages":[]}'),
    ) -> None:
        self._log = log
        self._connections = connections
        self._ids = ids
        self._queue = queue
        self._lock = threading.Lock()
        self.last_event_ids: list[str] = []

    def __call__(self, request: Request) -> Iterator[Any]:
        if request.method == "POST":
            return iter([RECEIPT])
        if urlsplit(request.path).path != "/api/v1/stream":
            return iter([self._queue])
        assert parse_qs(urlsplit(request.path).query)["message_id"] == ["m-1"]
        after = request.headers.get("last-event-id", "")
        with self._lock:
            connection = self._connections.pop(0) if len(self._connections) > 1 else self._connections[0]
            self.last_event_ids.append(after)
        if not isinstance(connection, ScriptedConnection):
            return iter([connection])
        return self._stream(int(after.partition("-")[0]) if after else 0, connection)

    def _stream(self, start: int, connection: ScriptedConnection) -> Iterator[Any]:
        yield stream_head()
        data = b"".join(self._frame(number) for number in range(start, len(self._log)))[: connection.max_bytes]
        for position in range(0, len(data), connection.piece):
            yield chunk(data[position : position + connection.piece])
            if connection.pause:
                yield connection.pause
        yield from connection.ending if isinstance(connection.ending, list) else [connection.ending]

    def _frame(self, number: int) -> bytes:
        event, data = self._log[number]
        return (
            f"event: {event}\r\ndata: {data}\r\n".encode()
            + (f"id: {number + 1}-0\r\n".encode() if self._ids else b"")
            + b"\r\n"
        )

    def bytes_of(self, count: int) -> int:
        """The size in bytes of the first `count` events."""
        return sum(len(self._frame(number)) for number in range(count))


@pytest.fixture(autouse=True, scope="module")
def _fast_reconnects() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconnect, "RECONNECT_SECONDS", 0.002)
        yield


RESUMABLE = {"X-Chat-Resume": "1"}
"""Headers of a reader that resumes if its stream ends without a terminal event."""


def post_message(broker: WireServer, headers: Mapping[str, str] = {}, **options: str) -> Any:
    """Posts a message to an app in this process."""
    app = new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **options)
    return app.test_client().post("/api/chat/stream", json={"message": "hello"}, headers={**ADA, **headers})


def receive(broker: WireServer, headers: Mapping[str, str] = {}, **options: str) -> list[dict]:
    """Posts a message to an app in this process. Returns the events of its reply."""
    response = post_message(broker, headers, **options)
    assert response.status_code == 200, response.text
    return events_of(response.text)


def events_of(text: str) -> list[dict]:
    assert text.endswith("\n\n")
    frames = text.removesuffix("\n\n").split("\n\n")
    return [content_of(frame) | ({"id": id_of(frame)} if id_of(frame) else {}) for frame in frames]


def ends_of(events: list[dict]) -> list[str]:
    return [event.get("code", event["type"]) for event in events if event["type"] in TERMINAL]


def assert_complete(events: list[dict]) -> None:
    assert [event["id"] for event in events] == [f"{number + 1}-0" for number in range(len(REPLY_LOG) - 1)]
    assert text_of(events) == "".join(WORDS)
    assert ends_of(events) == ["complete"]


# Temporary interruptions


INTERRUPTIONS = {"a reset": CUT, "a truncated end": END, "a clean end": LAST_CHUNK, "silence": HANG}


@pytest.mark.parametrize("ending", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_an_interruption_is_invisible_to_the_browser(ending):
    script = NumberedBroker(REPLY_LOG, [])
    script._connections = [
        ScriptedConnection(script.bytes_of(2), ending=ending),
        ScriptedConnection(script.bytes_of(5) + 7, ending=ending),
        ScriptedConnection(ending=ending),
    ]
    with WireServer(script) as broker:
        assert_complete(receive(broker, UPSTREAM_READ_SECONDS="0.3"))

    assert script.last_event_ids[0] == ""
    assert script.last_event_ids[1] == "2-0"
    assert len(script.last_event_ids) == 3


def test_interruptions_after_each_event_do_not_end_the_reply():
    script = NumberedBroker(
        [*map(progress, WORDS * 4), BrokerEvent("message", COMPLETE)], [ScriptedConnection(160, ending=CUT)]
    )
    with WireServer(script) as broker:
        events = receive(broker)

    assert text_of(events) == "".join(WORDS * 4)
    assert ends_of(events) == ["complete"]
    assert len(script.last_event_ids) > reconnect.MAX_RECONNECTS
    assert all(int(a.partition("-")[0] or 0) < int(b.partition("-")[0]) for a, b in pairwise(script.last_event_ids))


def test_a_short_outage_of_the_broker_is_invisible():
    outages = [
        reply(b"", "503 Service Unavailable"),
        reply(b"<html>", "502 Bad Gateway"),
        reply(b"", "500 Internal Server Error"),
    ]
    script = NumberedBroker(REPLY_LOG, [ScriptedConnection(200, ending=CUT), *outages, ScriptedConnection()])
    with WireServer(script) as broker:
        assert_complete(receive(broker))


@pytest.mark.live
def test_interruptions_are_invisible_over_real_sockets(start, single):
    script = NumberedBroker(
        REPLY_LOG,
        [
            ScriptedConnection(150, ending=CUT),
            ScriptedConnection(220, ending=LAST_CHUNK),
            ScriptedConnection(190, 50, 0.01, CUT),
            ScriptedConnection(),
        ],
    )
    with WireServer(script) as broker:
        server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)

        with Browser(server).say("hello") as response:
            assert_complete(list(response.events()))

    assert len(script.last_event_ids) == 4


@pytest.mark.live
def test_heartbeats_continue_during_an_outage(start, single):
    script = NumberedBroker(
        REPLY_LOG, [ScriptedConnection(150, ending=CUT), *[reply(b"", "503 Service Unavailable")] * 3, ScriptedConnection()]
    )
    with WireServer(script) as broker:
        server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, HEARTBEAT_SECONDS="0.2")

        with Browser(server).say("hello") as response:
            events = list(response.events())

    assert [event["type"] for event in events].count("keepalive") >= 2
    assert_complete([event for event in events if event["type"] != "keepalive"])


@pytest.mark.live
def test_a_disconnect_during_an_outage_releases_the_slot(start, single):
    script = NumberedBroker(REPLY_LOG, [ScriptedConnection(150, ending=CUT), reply(b"", "503 Service Unavailable")])
    with WireServer(script) as broker:
        server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, MAX_STREAMS_PER_USER="1")
        browser = Browser(server)
        take(browser.say("hello"), 1)

        assert eventually(lambda: status_of(browser.follow("m-1")) != 429, 2)


def test_a_429_of_the_broker_is_retried():
    script = NumberedBroker(
        REPLY_LOG, [ScriptedConnection(200, ending=CUT), reply(b"{}", "429 Too Many Requests"), ScriptedConnection()]
    )
    with WireServer(script) as broker:
        assert_complete(receive(broker))


# Permanent failures


NOT_FOUND = reply(b'{"detail":"gone","code":"not_found"}', "404 Not Found")
EXPIRED = reply(b'{"detail":"gone","code":"expired"}', "410 Gone")
PERMANENT_FAILURES = {
    "cut, then unavailable": (CUT, [reply(b"", "503 Service Unavailable")], "upstream_unavailable"),
    "cut, then silent": (CUT, [HANG], "upstream_unavailable"),
    "silent, then unavailable": (HANG, [reply(b"", "503 Service Unavailable")], "upstream_timeout"),
    "silent, then not found": (HANG, [NOT_FOUND], "upstream_timeout"),
    "ended, then unavailable": (LAST_CHUNK, [reply(b"", "503 Service Unavailable")], "upstream_unavailable"),
    "ended, then silent": (LAST_CHUNK, [HANG], "upstream_timeout"),
    "ended, then silent, then unavailable": (LAST_CHUNK, [HANG, reply(b"", "503 Service Unavailable")], "upstream_timeout"),
    "ended, then an error": (LAST_CHUNK, [reply(b"", "500 Internal Server Error")], "upstream_error"),
    "ended, then HTML": (LAST_CHUNK, [reply(b"<html>", content_type="text/html")], "upstream_error"),
    "ended, then too many requests": (LAST_CHUNK, [reply(b"{}", "429 Too Many Requests")], "upstream_unavailable"),
    "ended again and again": (LAST_CHUNK, [ScriptedConnection(0)], "upstream_unavailable"),
    "cut, then not found": (CUT, [NOT_FOUND], "upstream_unavailable"),
    "ended, then not found": (LAST_CHUNK, [NOT_FOUND], "upstream_unavailable"),
    "cut, then expired": (CUT, [EXPIRED], "upstream_unavailable"),
    "ended, then expired": (LAST_CHUNK, [EXPIRED], "upstream_unavailable"),
    "cut, then refused": (CUT, [reply(b'{"code":"invalid_request"}', "400 Bad Request")], "upstream_unavailable"),
}
"""How a stream ends, the responses to reconnects, and the error code of a reader that does not resume."""
SHORT_TIMEOUT = {"UPSTREAM_READ_SECONDS": "0.1"}


@pytest.fixture
def timeouts(monkeypatch, ending, attempts) -> dict[str, str]:
    """Settings. Timeouts are short only if the broker is silent: on a busy machine, its responses may come late."""
    is_silent = HANG in (ending, *attempts)
    for name in ("MIN_REOPEN_SECONDS", "REOPEN_SECONDS"):
        monkeypatch.setattr(reconnect, name, 0.05 if is_silent else DEADLINE)
    return SHORT_TIMEOUT if is_silent else {}


@pytest.mark.parametrize(("ending", "attempts", "code"), PERMANENT_FAILURES.values(), ids=PERMANENT_FAILURES)
def test_a_reader_that_does_not_resume_gets_the_first_error(timeouts, ending, attempts, code):
    script = NumberedBroker(REPLY_LOG, [ScriptedConnection(200, ending=ending), *attempts])
    with WireServer(script) as broker:
        events = receive(broker, **timeouts)

    assert ends_of(events) == [code]
    assert events[-1]["type"] == "error"
    assert len(script.last_event_ids) == 1 + (1 if attempts[-1] in FINAL else reconnect.MAX_RECONNECTS)


FINAL = [NOT_FOUND, EXPIRED, reply(b'{"code":"invalid_request"}', "400 Bad Request")]
"""Responses after which the relay does not reconnect."""


@pytest.mark.parametrize(("ending", "attempts", "code"), PERMANENT_FAILURES.values(), ids=PERMANENT_FAILURES)
def test_a_resumable_reader_is_disconnected_without_an_end(timeouts, ending, attempts, code):
    script = NumberedBroker(REPLY_LOG, [ScriptedConnection(200, ending=ending), *attempts])
    with WireServer(script) as broker:
        events = receive(broker, RESUMABLE, **timeouts)

    assert events
    assert ends_of(events) == []


def test_reconnects_of_one_reply_are_limited(monkeypatch):
    monkeypatch.setattr(reconnect, "MAX_RECONNECTS_PER_REPLY", 3)
    for headers, ends in (({}, ["upstream_unavailable"]), (RESUMABLE, [])):
        script = NumberedBroker(
            [*map(progress, WORDS * 4), BrokerEvent("message", COMPLETE)], [ScriptedConnection(160, ending=CUT)]
        )
        with WireServer(script) as broker:
            assert ends_of(receive(broker, headers)) == ends


@pytest.mark.parametrize("headers", [{}, RESUMABLE], ids=["not resumable", "resumable"])
@pytest.mark.parametrize("ending", [CUT, LAST_CHUNK], ids=["cut", "ended"])
@pytest.mark.parametrize("last", [ScriptedConnection(), b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["done", "no content"])
def test_a_log_without_a_terminal_event_is_incomplete_for_every_reader(headers, ending, last):
    log = [event for event in REPLY_LOG if event.data != COMPLETE]
    script = NumberedBroker(log, [])
    script._connections = [ScriptedConnection(script.bytes_of(len(log) - 1), ending=ending), last]
    with WireServer(script) as broker:
        assert ends_of(receive(broker, headers)) == ["answer_incomplete"]


@pytest.mark.parametrize("headers", [{}, RESUMABLE], ids=["not resumable", "resumable"])
def test_an_oversized_event_is_an_error_for_every_reader(headers):
    with WireServer(NumberedBroker([progress("x" * 5000)], [ScriptedConnection()])) as broker:
        assert ends_of(receive(broker, headers, MAX_EVENT_BYTES="1024")) == ["upstream_error"]


def test_an_event_without_an_id_counts_as_progress():
    script = NumberedBroker(REPLY_LOG, [])
    unnumbered = chunk(b'event: message\r\ndata: {"type":"keepalive"}\r\n\r\n')
    script._connections = [
        ScriptedConnection(script.bytes_of(4)),
        ScriptedConnection(0, ending=[unnumbered, LAST_CHUNK]),
        ScriptedConnection(),
    ]
    with WireServer(script) as broker:
        events = receive(broker)

    assert_complete([event for event in events if event["type"] != "keepalive"])
    assert script.last_event_ids == ["", "4-0", "4-0"]


@pytest.mark.parametrize("ending", [CUT, LAST_CHUNK], ids=["cut", "ended"])
def test_an_interruption_is_no_end_while_the_broker_is_unavailable(ending):
    for headers, ends in (({}, ["upstream_unavailable"]), (RESUMABLE, [])):
        script = NumberedBroker(REPLY_LOG, [ScriptedConnection(0, ending=ending)], queue=reply(b"", "503 Service Unavailable"))
        with WireServer(script) as broker:
            text = post_message(broker, headers).text
        assert ends_of(events_of(text) if text else []) == ends


@pytest.mark.parametrize("protocol", ["ai-sdk", "ag-ui"])
def test_clients_of_other_protocols_get_an_error_unless_resumable(protocol):
    for headers, errors in (({}, 1), (RESUMABLE, 0)):
        script = NumberedBroker(REPLY_LOG, [ScriptedConnection(200), reply(b"", "503 Service Unavailable")])
        with WireServer(script) as broker:
            app = new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
            path = f"/api/chat/stream?protocol={protocol}"
            text = app.test_client().post(path, json=BODIES[protocol], headers={**ADA, **headers}).text

        assert len(re.findall('"type":"(error|RUN_ERROR)"', text)) == errors, text
        assert not re.search('"type":"(finish|RUN_FINISHED)"', text)


BODIES = {
    "ai-sdk": {"id": "c-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "hello"}]}]},
    "ag-ui": {"threadId": "t-1", "runId": "r-1", "messages": [{"id": "u-1", "role": "user", "content": "hello"}]},
}


def test_openai_clients_get_an_error():
    for stream in (False, True):
        script = NumberedBroker(REPLY_LOG, [ScriptedConnection(200), reply(b"", "503 Service Unavailable")])
        with WireServer(script) as broker:
            app = new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
            body = {"model": "default", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
            response = app.test_client().post("/v1/chat/completions", json=body, headers={**ADA, **RESUMABLE})

        assert response.status_code == (200 if stream else 503)
        assert '"code":"upstream_unavailable"' in response.text.replace(" ", "")


@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_restarted_broker_without_its_replies_ends_each_once(start, single):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
    replies = [Browser(server, f"user-{number}").say("/slow 30 one two three") for number in range(10)]
    events = [response.events() for response in replies]
    first_events = [[next(stream) for _ in range(3)] for stream in events]

    broker.crash()
    restarted = start("broker", BROKER_API_KEY=BROKER_KEY, port=broker.port)
    ended = in_parallel(10, lambda number: list(events[number]))

    for before, after in zip(first_events, ended, strict=True):
        assert [event["type"] for event in before] == ["status", "status", "progress"]
        assert ends_of(after) == ["upstream_unavailable"]
        assert after[-1]["type"] == "error"
    assert restarted.url == broker.url
    assert last_of(Browser(server).say("hello"))["type"] == "complete"


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_broker_that_dies_ends_each_reply_once(start):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    server = start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
    replies = [Browser(server, f"user-{number}").say("/slow 30 one two three") for number in range(10)]
    events = [response.events() for response in replies]
    for stream in events:
        next(stream)

    broker.crash()
    started = monotonic()
    ended = in_parallel(10, lambda number: list(events[number]))

    assert 2 < monotonic() - started < 20, "reconnects were tried"
    assert [ends_of(after) for after in ended] == [["upstream_unavailable"]] * 10
    with Browser(server).say("hello") as refused:
        assert (refused.status, refused.json()["code"]) == (503, "upstream_unavailable")


# Arbitrary behaviour


BROKER_EVENTS = st.one_of(
    st.builds(progress, st.text(max_size=20)),
    st.sampled_from(
        [
            BrokerEvent("queued", '{"position": 2}'),
            BrokerEvent("processing", ""),
            BrokerEvent("message", '{"type":"keepalive"}'),
            BrokerEvent("message", "no JSON"),
            BrokerEvent("message", '{"type": 5}'),
            BrokerEvent("unknown", '{"type":"tool_use"}'),
            BrokerEvent("message", COMPLETE),
            BrokerEvent("message", '{"type":"complete"}'),
            BrokerEvent("message", '{"type":"error","error":"oh"}'),
            BrokerEvent("error", "oh"),
            BrokerEvent("done", "{}"),
        ]
    ),
)
CONNECTIONS = st.builds(
    ScriptedConnection,
    max_bytes=st.one_of(st.none(), st.integers(0, 600)),
    piece=st.integers(1, 200),
    pause=st.sampled_from([0.0, 0.0, 0.0, 0.002]),
    ending=st.sampled_from([CUT, END, LAST_CHUNK, HANG, chunk(b"\0\xff\n") + LAST_CHUNK, b"nonsense\r\n"]),
)
LAST_CONNECTIONS = st.one_of(
    st.just(ScriptedConnection()),
    CONNECTIONS,
    st.sampled_from(
        [
            reply(b"", "500 Internal Server Error"),
            reply(b'{"code":"expired"}', "410 Gone"),
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"nonsense\r\n\r\n",
        ]
    ),
)


@pytest.mark.slow
@pytest.mark.timeout(90)  # It builds a hundred apps.
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    log=st.lists(BROKER_EVENTS, max_size=12),
    first=CONNECTIONS,
    connections=st.lists(CONNECTIONS, max_size=4),
    last=LAST_CONNECTIONS,
    ids=st.booleans(),
)
@pytest.mark.alone
def test_any_broker_behaviour_gives_exactly_one_end(log, first, connections, last, ids):
    script = NumberedBroker(log, [first, *connections, last], ids=ids)
    with WireServer(script) as broker:
        response = post_message(broker, UPSTREAM_READ_SECONDS="0.1", ANSWER_MAX_SECONDS="5")
    if response.status_code != 200:
        assert response.json["code"].startswith("upstream_"), "it failed before the first event"
        return
    events = events_of(response.text)

    assert len(ends_of(events)) == 1
    assert events[-1]["type"] in TERMINAL
    numbers = [int(event["id"].partition("-")[0]) for event in events if "id" in event]
    assert all(earlier < later for earlier, later in pairwise(numbers)), "in order, without repetition"
    response = text_of(events)
    full_text = "".join(json.loads(data)["text"] for _, data in log if '"progress"' in data)
    assert full_text.startswith(response), "no gap"
