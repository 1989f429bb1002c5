"""Frames as they are on the wire, and what is wrong with them."""

import json
from time import monotonic

import pytest

from bff.api.cli.conformance.client import Address, Request, send
from bff.api.cli.conformance.sse import Event, EventStream, Frame, byte_problems, event_of, framing_problems
from tests.wire_server import LAST_CHUNK, WireServer, chunk, stream_head

STREAM = (
    'data: {"type":"status","message":"Processing..."}\nid: 1\nretry: 500\n\n'
    ": keepalive\n\n"
    'data: {"type":"keepalive"}\n\n'
    'data: {"type":"progress","text":"日 \u2028"}\nid: 2\n\n'
    'data: {"type":"complete"}\nid: 3\n\n'
).encode()


def read(*pieces: bytes) -> EventStream:
    with WireServer([stream_head() + b"".join(map(chunk, pieces)) + LAST_CHUNK]) as server:
        response = send(Address.parse(server.url), Request("GET", "/", {}), monotonic() + 5)
        with EventStream(response, monotonic()) as stream:
            return stream.read_all(monotonic() + 5)


def event(raw: bytes) -> Event | None:
    return event_of(Frame(raw, 0.0))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_events_do_not_depend_on_the_chunks(size):
    stream = read(*(STREAM[start : start + size] for start in range(0, len(STREAM), size)))

    assert [(event.type, event.id) for event in stream.logged] == [("status", "1"), ("progress", "2"), ("complete", "3")]
    assert stream.text == "日 \u2028"
    assert (stream.raw, stream.rest) == (STREAM, b"")


def test_half_a_frame_is_no_event():
    stream = read(b'data: {"type":"complete"}\n\ndata: {"type":"error"}\n')

    assert [event.type for event in stream.events] == ["complete"]
    assert stream.rest == b'data: {"type":"error"}\n'


def test_a_reply_is_read_even_if_its_framing_is_wrong():
    found = event(b'event: message\r\nid:7\r\ndata:{"type":\r\ndata:"progress"}\r\n\r\n')

    assert (found.type, found.id) == ("progress", "7")


def test_readers_are_compared_without_what_is_their_own():
    one = event(b'data: {"type":"error","code":"interrupted","request_id":"1"}\nid: 4\nretry: 700\n\n')
    other = event(b'data: {"type":"error","code":"interrupted","request_id":"2"}\nid: 4\n\n')

    assert one.key == other.key
    assert b"retry" not in one.frame.without_retry


def test_text_before_a_restart_does_not_count():
    contents = ({"type": "progress", "text": "old"}, {"type": "restart"}, {"type": "progress", "text": "new"})
    stream = read(*(f"data: {json.dumps(content)}\n\n".encode() for content in contents))

    assert stream.text == "new"


@pytest.mark.parametrize(
    "raw", [b"data: {}\n\n", b"data: {}\nid: 1\n\n", b"data: {}\nid: 1\nretry: 5\n\n", b": keepalive\n\n", b"retry: 500\n\n"]
)
def test_valid_frames_have_no_problems(raw):
    assert [*framing_problems(Frame(raw, 0.0)), *byte_problems(raw)] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"event: message\ndata: {}\n\n",
        b"id: 1\ndata: {}\n\n",
        b"data:{}\n\n",
        b"data: {\ndata: }\n\n",
        b"data: {}\nid: 1\nid: 2\n\n",
        b"id: 1\n\n",
        b"Data: {}\n\n",
        b"data\n\n",
    ],
)
def test_invalid_frames_have_problems(raw):
    assert [*framing_problems(Frame(raw, 0.0))]


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfdata: {}\n\n", b"data: {}\r\n\r\n", b"data: \xff\n\n", b"data: \0\n\n"])
def test_invalid_bytes_have_problems(raw):
    assert [*byte_problems(raw)]
