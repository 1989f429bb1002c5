"""Arbitrary event ids of an external broker: every id sent to a browser can be resumed from, and no event is repeated."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from bff.upstream import reconnect
from tests.broker_responses import COMPLETE, RECEIPT
from tests.live import ADA, BROKER_KEY, Browser, content_of, id_of, new_app, take, text_of
from tests.wire_server import CUT, LAST_CHUNK, Request, WireServer, chunk, reply, stream_head

VALID = ["1", "é-1", "日本/2?#", "👩‍💻", "x" * 256]
INVALID = ["a b", "tab\tbed", "nul\x01", "\u2028", "y" * 257, "é" * 129, " "]
MIXED = ["1", "a b", "c d", "日本", "e f", "y" * 257, "g h", "à", "last one"]


class ForeignBroker:
    """Sends a word per id in `ids`, then completes. Its streams are reset after as many events as `resets` gives, one each."""

    def __init__(self, ids: list[str], *resets: int) -> None:
        self.ids = ids
        self._resets = list(resets)
        self.last_event_ids: list[str] = []

    @property
    def text(self) -> str:
        return "".join(f"{number} " for number in range(len(self.ids)))

    def __call__(self, request: Request) -> Iterator[Any]:
        if request.method == "POST":
            return iter([RECEIPT])
        if urlsplit(request.path).path != "/api/v1/stream":
            return iter([reply(b'{"messages":[]}')])
        after = request.headers.get("last-event-id", "").encode("latin-1").decode()
        self.last_event_ids.append(after)
        start = self.ids.index(after) + 1 if after else 0
        return self._stream(start, start + self._resets.pop(0) if self._resets else None)

    def _stream(self, start: int, stop: int | None) -> Iterator[Any]:
        yield stream_head()
        for number, event_id in list(enumerate(self.ids))[start:stop]:
            yield chunk(f'data: {{"type":"progress","text":"{number} "}}\nid: {event_id}\n\n'.encode())
        yield CUT if stop else chunk(f"data: {COMPLETE}\n\n".encode()) + LAST_CHUNK


@pytest.fixture(autouse=True)
def _fast_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "RECONNECT_SECONDS", 0.002)


def client_of(broker: WireServer) -> Any:
    return new_app(LOG_LEVEL="ERROR", BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY).test_client()


def frames_of(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return response.text.removesuffix("\n\n").split("\n\n")


def complete_text(frames: list[str]) -> str:
    assert [content_of(frame)["type"] for frame in frames[-1:]] == ["complete"]
    return text_of([content_of(frame) for frame in frames])


@pytest.mark.parametrize("location", ["header", "query"])
@pytest.mark.parametrize("event_id", VALID)
def test_an_id_is_sent_back_to_the_broker_unchanged(event_id, location):
    script = ForeignBroker(["first", event_id, "third"])
    with WireServer(script) as broker:
        browser = client_of(broker)
        frames = frames_of(browser.post("/api/chat/stream", json={"message": "hello"}, headers=ADA))
        last = id_of(frames[1])
        query, header = ("?last_event_id=" + quote(last), {}) if location == "query" else ("", {"Last-Event-ID": as_sent(last)})
        rest = frames_of(browser.get(f"/api/chat/stream/m-1{query}", headers=ADA | header))

    assert last == event_id
    assert script.last_event_ids == ["", event_id]
    assert complete_text(rest) == "2 "


def as_sent(text: str) -> str:
    """Encodes UTF-8 as a WSGI header value."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize("protocol", ["native", "ai-sdk", "ag-ui"])
@pytest.mark.parametrize("event_id", [*VALID, *INVALID, "x" * 252, "1;text"])
def test_every_id_sent_to_a_client_is_accepted(event_id, protocol):
    body = {
        "native": {"message": "hello"},
        "ai-sdk": {"messages": [{"role": "user", "parts": [{"type": "text", "text": "hello"}]}]},
        "ag-ui": {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "hello"}]},
    }
    script = ForeignBroker(["first", event_id, "third"])
    with WireServer(script) as broker:
        browser, query = client_of(broker), f"?protocol={protocol}"
        frames = frames_of(browser.post(f"/api/chat/stream{query}", json=body[protocol], headers=ADA))
        sent = [id_of(frame) for frame in frames if id_of(frame)]
        for last in sent:
            resumed = browser.get(f"/api/chat/stream/m-1{query}", headers=ADA | {"Last-Event-ID": as_sent(last)})
            assert resumed.status_code == (204 if last.endswith(";end") else 200), (last, resumed.text)

    marks = ";text" if protocol != "native" else "", ";end"
    resumed_after = [last.removesuffix(marks[1]).removesuffix(marks[0]) for last in sent]
    assert script.last_event_ids == ["", *resumed_after]
    assert "first" in resumed_after
    assert (event_id in resumed_after) == (
        event_id in VALID[:4] or (protocol == "native" and event_id not in INVALID) or event_id == "1;text"
    )


@pytest.mark.parametrize("resets", [(1,), (2,), (3, 3), (5, 1, 2, 3), (8, 4), tuple(range(1, 10)), (9, 1), (3, 1, 1, 3)])
@pytest.mark.parametrize("ids", [MIXED, INVALID], ids=["some", "all"])
def test_no_event_is_repeated_if_ids_are_omitted(ids, resets):
    script = ForeignBroker(ids, *resets)
    with WireServer(script) as broker:
        frames = frames_of(client_of(broker).post("/api/chat/stream", json={"message": "hello"}, headers=ADA))

    assert complete_text(frames) == script.text
    assert {id_of(frame) for frame in frames} <= {"", *MIXED} - {"a b", "c d", "e f", "g h", "y" * 257, "last one"}
    assert set(script.last_event_ids) <= {"", "1", "日本", "à"}


def test_a_broker_without_progress_is_given_up():
    script = ForeignBroker(["1", "a b", "c d"], *[3] * 30)
    with WireServer(script) as broker:
        frames = frames_of(client_of(broker).post("/api/chat/stream", json={"message": "hello"}, headers=ADA))

    assert [content_of(frame)["type"] for frame in frames] == ["progress"] * 3 + ["error"]
    assert len(script.last_event_ids) == 1 + reconnect.MAX_RECONNECTS


@pytest.mark.live
def test_a_reader_resumes_over_real_sockets(start, kind):
    script = ForeignBroker(MIXED)
    with WireServer(script) as broker:
        browser = Browser(start(kind, BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY))
        frames = take(browser.say("hello"))
        last_ids = [id_of(frame) for frame in frames if id_of(frame)]
        rests = [take(browser.follow("m-1", as_sent(last))) for last in last_ids]

    assert script.last_event_ids == ["", *last_ids]
    assert last_ids[:3] == ["1", "日本", "à"]
    assert all(len(earlier) > len(later) for earlier, later in pairwise([frames, *rests[:3]]))
    assert json.loads(rests[2][0].splitlines()[0][6:])["text"] == "8 "
