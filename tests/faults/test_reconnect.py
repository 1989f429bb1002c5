"""The line to a broker that numbers its events breaks: the browser sees no gap, nothing twice, and always one end."""

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
from tests.broker_says import COMPLETE, TICKET
from tests.live import (
    ADA,
    BROKER_KEY,
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
    """An event of the broker's."""

    event: str
    data: str


def progress(text: str) -> BrokerEvent:
    return BrokerEvent("message", json.dumps({"type": "progress", "text": text}))


ANSWER = [
    BrokerEvent("queued", "{}"),
    BrokerEvent("processing", ""),
    *map(progress, WORDS),
    BrokerEvent("message", COMPLETE),
    BrokerEvent("done", "{}"),
]


class Line(NamedTuple):
    """How one connection goes: so many bytes of what is left, in pieces, and how it ends."""

    most: int | None = None
    piece: int = 65536
    pause: float = 0.0
    ending: Any = LAST_CHUNK


class NumberedBroker:
    """Says `log` after the last event id it is shown, a connection for each of `lines`; the last one is repeated."""

    def __init__(
        self, log: list[BrokerEvent], lines: list[Line], *, ids: bool = True, queue: bytes = reply(b'{"messages":[]}')
    ) -> None:
        self._log = log
        self._lines = lines
        self._ids = ids
        self._queue = queue
        self._lock = threading.Lock()
        self.asked_after: list[str] = []

    def __call__(self, request: Request) -> Iterator[Any]:
        if request.method == "POST":
            return iter([TICKET])
        if urlsplit(request.path).path != "/api/v1/stream":
            return iter([self._queue])
        assert parse_qs(urlsplit(request.path).query)["message_id"] == ["m-1"]
        after = request.headers.get("last-event-id", "")
        with self._lock:
            line = self._lines.pop(0) if len(self._lines) > 1 else self._lines[0]
            self.asked_after.append(after)
        if not isinstance(line, Line):
            return iter([line])
        return self._say(int(after.partition("-")[0]) if after else 0, line)

    def _say(self, start: int, line: Line) -> Iterator[Any]:
        yield stream_head()
        left = b"".join(self._frame(number) for number in range(start, len(self._log)))[: line.most]
        for at in range(0, len(left), line.piece):
            yield chunk(left[at : at + line.piece])
            if line.pause:
                yield line.pause
        yield from line.ending if isinstance(line.ending, list) else [line.ending]

    def _frame(self, number: int) -> bytes:
        event, data = self._log[number]
        return (
            f"event: {event}\r\ndata: {data}\r\n".encode()
            + (f"id: {number + 1}-0\r\n".encode() if self._ids else b"")
            + b"\r\n"
        )

    def bytes_until(self, count: int) -> int:
        """The bytes of the first `count` events."""
        return sum(len(self._frame(number)) for number in range(count))


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconnect, "RECONNECT_SECONDS", 0.002)
        yield


RESUMES = {"X-Chat-Resume": "1"}
"""Of a reader that comes back when its stream ends without a terminal event."""


def asked(broker: WireServer, headers: Mapping[str, str] = {}, **options: str) -> Any:
    """The response to a message left in this process."""
    app = new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, **options)
    return app.test_client().post("/api/chat/stream", json={"message": "hello"}, headers={**ADA, **headers})


def told(broker: WireServer, headers: Mapping[str, str] = {}, **options: str) -> list[dict]:
    """An answer, as a browser is told it in this process."""
    response = asked(broker, headers, **options)
    assert response.status_code == 200, response.text
    return events_of(response.text)


def events_of(text: str) -> list[dict]:
    assert text.endswith("\n\n")
    frames = text.removesuffix("\n\n").split("\n\n")
    return [content_of(frame) | ({"id": id_of(frame)} if id_of(frame) else {}) for frame in frames]


def ends_of(events: list[dict]) -> list[str]:
    return [event.get("code", event["type"]) for event in events if event["type"] in TERMINAL]


def assert_whole(events: list[dict]) -> None:
    assert [event["id"] for event in events] == [f"{number + 1}-0" for number in range(len(ANSWER) - 1)]
    assert text_of(events) == "".join(WORDS)
    assert ends_of(events) == ["complete"]


# Breaks that nobody notices


BREAKS = {"a reset": CUT, "a bare end": END, "a clean end": LAST_CHUNK, "silence": HANG}


@pytest.mark.parametrize("ending", BREAKS.values(), ids=BREAKS)
def test_the_browser_notices_nothing_of_a_break(ending):
    plan = NumberedBroker(ANSWER, [])
    plan._lines = [Line(plan.bytes_until(2), ending=ending), Line(plan.bytes_until(5) + 7, ending=ending), Line(ending=ending)]
    with WireServer(plan) as broker:
        assert_whole(told(broker, UPSTREAM_READ_SECONDS="0.3"))

    assert plan.asked_after[0] == ""
    assert plan.asked_after[1] == "2-0"
    assert len(plan.asked_after) == 3


def test_a_break_after_each_event_is_not_one_too_many():
    plan = NumberedBroker([*map(progress, WORDS * 4), BrokerEvent("message", COMPLETE)], [Line(160, ending=CUT)])
    with WireServer(plan) as broker:
        events = told(broker)

    assert text_of(events) == "".join(WORDS * 4)
    assert ends_of(events) == ["complete"]
    assert len(plan.asked_after) > reconnect.MAX_RECONNECTS
    assert all(int(a.partition("-")[0] or 0) < int(b.partition("-")[0]) for a, b in pairwise(plan.asked_after))


def test_a_broker_that_is_out_for_a_moment_is_waited_for():
    out = [reply(b"", "503 Service Unavailable"), reply(b"<html>", "502 Bad Gateway"), reply(b"", "500 Internal Server Error")]
    plan = NumberedBroker(ANSWER, [Line(200, ending=CUT), *out, Line()])
    with WireServer(plan) as broker:
        assert_whole(told(broker))


@pytest.mark.live
def test_a_real_browser_notices_nothing_either(start, single):
    plan = NumberedBroker(ANSWER, [Line(150, ending=CUT), Line(220, ending=LAST_CHUNK), Line(190, 50, 0.01, CUT), Line()])
    with WireServer(plan) as broker:
        server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)

        with Browser(server).say("hello") as said:
            assert_whole(list(said.events()))

    assert len(plan.asked_after) == 4


@pytest.mark.live
def test_heartbeats_go_on_while_the_broker_is_out(start, single):
    plan = NumberedBroker(ANSWER, [Line(150, ending=CUT), *[reply(b"", "503 Service Unavailable")] * 3, Line()])
    with WireServer(plan) as broker:
        server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, HEARTBEAT_SECONDS="0.2")

        with Browser(server).say("hello") as said:
            events = list(said.events())

    assert [event["type"] for event in events].count("keepalive") >= 2
    assert_whole([event for event in events if event["type"] != "keepalive"])


@pytest.mark.live
def test_a_browser_that_leaves_while_the_broker_is_out_is_noticed(start, single):
    plan = NumberedBroker(ANSWER, [Line(150, ending=CUT), reply(b"", "503 Service Unavailable")])
    with WireServer(plan) as broker:
        server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, MAX_STREAMS_PER_USER="1")
        browser = Browser(server)
        take(browser.say("hello"), 1)

        assert eventually(lambda: status_of(browser.follow("m-1")) != 429, 2)


def test_a_broker_that_wants_to_be_asked_less_often_is_asked_again():
    plan = NumberedBroker(ANSWER, [Line(200, ending=CUT), reply(b"{}", "429 Too Many Requests"), Line()])
    with WireServer(plan) as broker:
        assert_whole(told(broker))


# Breaks for good


LOST = reply(b'{"detail":"gone","code":"not_found"}', "404 Not Found")
EXPIRED = reply(b'{"detail":"gone","code":"expired"}', "410 Gone")
FOR_GOOD = {
    "cut, then out": (CUT, [reply(b"", "503 Service Unavailable")], "upstream_unavailable"),
    "cut, then silent": (CUT, [HANG], "upstream_unavailable"),
    "silent, then out": (HANG, [reply(b"", "503 Service Unavailable")], "upstream_timeout"),
    "silent, then lost": (HANG, [LOST], "upstream_timeout"),
    "ended, then out": (LAST_CHUNK, [reply(b"", "503 Service Unavailable")], "upstream_unavailable"),
    "ended, then silent": (LAST_CHUNK, [HANG], "upstream_timeout"),
    "ended, then silent, then out": (LAST_CHUNK, [HANG, reply(b"", "503 Service Unavailable")], "upstream_timeout"),
    "ended, then broken": (LAST_CHUNK, [reply(b"", "500 Internal Server Error")], "upstream_error"),
    "ended, then something else": (LAST_CHUNK, [reply(b"<html>", content_type="text/html")], "upstream_error"),
    "ended, then too much asked": (LAST_CHUNK, [reply(b"{}", "429 Too Many Requests")], "upstream_unavailable"),
    "ended again and again": (LAST_CHUNK, [Line(0)], "upstream_unavailable"),
    "cut, then lost": (CUT, [LOST], "upstream_unavailable"),
    "ended, then lost": (LAST_CHUNK, [LOST], "upstream_unavailable"),
    "cut, then expired": (CUT, [EXPIRED], "upstream_unavailable"),
    "ended, then expired": (LAST_CHUNK, [EXPIRED], "upstream_unavailable"),
    "cut, then refused": (CUT, [reply(b'{"code":"invalid_request"}', "400 Bad Request")], "upstream_unavailable"),
}
"""How a stream ends, what each attempt to open it again gets, and the code of a reader that does not come back."""
SOON = {"UPSTREAM_READ_SECONDS": "0.1"}


@pytest.fixture
def _in_a_hurry(monkeypatch) -> None:
    monkeypatch.setattr(reconnect, "MIN_REOPEN_SECONDS", 0.05)
    monkeypatch.setattr(reconnect, "REOPEN_SECONDS", 0.05)


@pytest.mark.usefixtures("_in_a_hurry")
@pytest.mark.parametrize(("ending", "then", "code"), FOR_GOOD.values(), ids=FOR_GOOD)
def test_a_reader_that_does_not_come_back_is_told_what_went_wrong_first(ending, then, code):
    plan = NumberedBroker(ANSWER, [Line(200, ending=ending), *then])
    with WireServer(plan) as broker:
        events = told(broker, **SOON)

    assert ends_of(events) == [code]
    assert events[-1]["type"] == "error"
    assert len(plan.asked_after) == 1 + (1 if then[-1] in FINAL else reconnect.MAX_RECONNECTS)


FINAL = [LOST, EXPIRED, reply(b'{"code":"invalid_request"}', "400 Bad Request")]
"""Then the broker is not asked again."""


@pytest.mark.usefixtures("_in_a_hurry")
@pytest.mark.parametrize(("ending", "then", "code"), FOR_GOOD.values(), ids=FOR_GOOD)
def test_a_reader_that_comes_back_is_sent_away_without_an_end(ending, then, code):
    plan = NumberedBroker(ANSWER, [Line(200, ending=ending), *then])
    with WireServer(plan) as broker:
        events = told(broker, RESUMES, **SOON)

    assert events
    assert ends_of(events) == []


def test_a_broker_that_begins_anew_each_time_is_given_up_without_an_end(monkeypatch):
    monkeypatch.setattr(reconnect, "MAX_RECONNECTS_PER_REPLY", 3)
    for headers, ends in (({}, ["upstream_unavailable"]), (RESUMES, [])):
        plan = NumberedBroker([*map(progress, WORDS * 4), BrokerEvent("message", COMPLETE)], [Line(160, ending=CUT)])
        with WireServer(plan) as broker:
            assert ends_of(told(broker, headers)) == ends


@pytest.mark.parametrize("headers", [{}, RESUMES], ids=["does not come back", "comes back"])
@pytest.mark.parametrize("ending", [CUT, LAST_CHUNK], ids=["cut", "ended"])
@pytest.mark.parametrize("last", [Line(), b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["done", "nothing left"])
def test_a_log_that_is_done_without_a_terminal_event_is_incomplete_for_everybody(headers, ending, last):
    log = [event for event in ANSWER if event.data != COMPLETE]
    plan = NumberedBroker(log, [])
    plan._lines = [Line(plan.bytes_until(len(log) - 1), ending=ending), last]
    with WireServer(plan) as broker:
        assert ends_of(told(broker, headers)) == ["answer_incomplete"]


@pytest.mark.parametrize("headers", [{}, RESUMES], ids=["does not come back", "comes back"])
def test_an_event_nobody_can_read_is_an_error_for_everybody(headers):
    with WireServer(NumberedBroker([progress("x" * 5000)], [Line()])) as broker:
        assert ends_of(told(broker, headers, MAX_EVENT_BYTES="1024")) == ["upstream_error"]


def test_an_event_without_an_id_is_no_reason_to_give_up():
    plan = NumberedBroker(ANSWER, [])
    unnumbered = chunk(b'event: message\r\ndata: {"type":"keepalive"}\r\n\r\n')
    plan._lines = [Line(plan.bytes_until(4)), Line(0, ending=[unnumbered, LAST_CHUNK]), Line()]
    with WireServer(plan) as broker:
        events = told(broker)

    assert_whole([event for event in events if event["type"] != "keepalive"])
    assert plan.asked_after == ["", "4-0", "4-0"]


@pytest.mark.parametrize("ending", [CUT, LAST_CHUNK], ids=["cut", "ended"])
def test_while_nothing_is_known_of_the_broker_a_broken_stream_is_no_end(ending):
    for headers, ends in (({}, ["upstream_unavailable"]), (RESUMES, [])):
        plan = NumberedBroker(ANSWER, [Line(0, ending=ending)], queue=reply(b"", "503 Service Unavailable"))
        with WireServer(plan) as broker:
            text = asked(broker, headers).text
        assert ends_of(events_of(text) if text else []) == ends


@pytest.mark.parametrize("protocol", ["ai-sdk", "ag-ui"])
def test_clients_of_other_protocols_get_their_error_unless_they_come_back(protocol):
    for headers, errors in (({}, 1), (RESUMES, 0)):
        plan = NumberedBroker(ANSWER, [Line(200), reply(b"", "503 Service Unavailable")])
        with WireServer(plan) as broker:
            app = new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
            path = f"/api/chat/stream?protocol={protocol}"
            text = app.test_client().post(path, json=BODIES[protocol], headers={**ADA, **headers}).text

        assert len(re.findall('"type":"(error|RUN_ERROR)"', text)) == errors, text
        assert not re.search('"type":"(finish|RUN_FINISHED)"', text)


BODIES = {
    "ai-sdk": {"id": "c-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "hello"}]}]},
    "ag-ui": {"threadId": "t-1", "runId": "r-1", "messages": [{"id": "u-1", "role": "user", "content": "hello"}]},
}


def test_clients_of_openai_get_their_error():
    for stream in (False, True):
        plan = NumberedBroker(ANSWER, [Line(200), reply(b"", "503 Service Unavailable")])
        with WireServer(plan) as broker:
            app = new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
            body = {"model": "default", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
            response = app.test_client().post("/v1/chat/completions", json=body, headers={**ADA, **RESUMES})

        assert response.status_code == (200 if stream else 503)
        assert '"code":"upstream_unavailable"' in response.text.replace(" ", "")


@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_broker_that_dies_under_its_answers_and_comes_back_without_them_ends_each_once(start, single):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    server = start(single, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
    replies = [Browser(server, f"user-{number}").say("/slow 30 one two three") for number in range(10)]
    events = [said.events() for said in replies]
    begun = [[next(one) for _ in range(3)] for one in events]

    broker.crash()
    again = start("broker", BROKER_API_KEY=BROKER_KEY, port=broker.port)
    ended = in_parallel(10, lambda number: list(events[number]))

    for before, after in zip(begun, ended, strict=True):
        assert [event["type"] for event in before] == ["status", "status", "progress"]
        assert ends_of(after) == ["upstream_unavailable"]
        assert after[-1]["type"] == "error"
    assert again.url == broker.url
    assert last_of(Browser(server).say("hello"))["type"] == "complete"


@pytest.mark.live
@pytest.mark.timeout(60)
def test_a_broker_that_dies_and_stays_away_ends_each_answer_once(start):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    server = start("gunicorn", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY)
    replies = [Browser(server, f"user-{number}").say("/slow 30 one two three") for number in range(10)]
    events = [said.events() for said in replies]
    for one in events:
        next(one)

    broker.crash()
    began = monotonic()
    ended = in_parallel(10, lambda number: list(events[number]))

    assert 2 < monotonic() - began < 20, "it was given a chance to come back"
    assert [ends_of(after) for after in ended] == [["upstream_unavailable"]] * 10
    with Browser(server).say("hello") as refused:
        assert (refused.status, refused.json()["code"]) == (503, "upstream_unavailable")


# Whatever it does


WORDS_OF_A_BROKER = st.one_of(
    st.builds(progress, st.text(max_size=20)),
    st.sampled_from(
        [
            BrokerEvent("queued", '{"position": 2}'),
            BrokerEvent("processing", ""),
            BrokerEvent("message", '{"type":"keepalive"}'),
            BrokerEvent("message", "no JSON"),
            BrokerEvent("message", '{"type": 5}'),
            BrokerEvent("unheard", '{"type":"tool_use"}'),
            BrokerEvent("message", COMPLETE),
            BrokerEvent("message", '{"type":"complete"}'),
            BrokerEvent("message", '{"type":"error","error":"oh"}'),
            BrokerEvent("error", "oh"),
            BrokerEvent("done", "{}"),
        ]
    ),
)
LINES = st.builds(
    Line,
    most=st.one_of(st.none(), st.integers(0, 600)),
    piece=st.integers(1, 200),
    pause=st.sampled_from([0.0, 0.0, 0.0, 0.002]),
    ending=st.sampled_from([CUT, END, LAST_CHUNK, HANG, chunk(b"\0\xff\n") + LAST_CHUNK, b"nonsense\r\n"]),
)
LAST_LINES = st.one_of(
    st.just(Line()),
    LINES,
    st.sampled_from(
        [
            reply(b"", "500 Internal Server Error"),
            reply(b'{"code":"expired"}', "410 Gone"),
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"nonsense\r\n\r\n",
        ]
    ),
)


@pytest.mark.timeout(90)  # A hundred apps are built.
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    log=st.lists(WORDS_OF_A_BROKER, max_size=12),
    first=LINES,
    lines=st.lists(LINES, max_size=4),
    last=LAST_LINES,
    ids=st.booleans(),
)
@pytest.mark.alone
def test_whatever_the_broker_does_there_is_one_end_and_it_is_last(log, first, lines, last, ids):
    plan = NumberedBroker(log, [first, *lines, last], ids=ids)
    with WireServer(plan) as broker:
        response = asked(broker, UPSTREAM_READ_SECONDS="0.1", ANSWER_MAX_SECONDS="5")
    if response.status_code != 200:
        assert response.json["code"].startswith("upstream_"), "it broke before there was anything to tell"
        return
    events = events_of(response.text)

    assert len(ends_of(events)) == 1
    assert events[-1]["type"] in TERMINAL
    numbers = [int(event["id"].partition("-")[0]) for event in events if "id" in event]
    assert all(earlier < later for earlier, later in pairwise(numbers)), "in order and nothing twice"
    said = text_of(events)
    whole = "".join(json.loads(data)["text"] for _, data in log if '"progress"' in data)
    assert whole.startswith(said), "no gap"
