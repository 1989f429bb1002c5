import random
import threading
from itertools import pairwise
from time import monotonic

import pytest
import responses

from bff.errors import ClientDisconnected, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.upstream.http import EventSource
from tests.upstream.http.client import DATA, fetch, pieces, read
from tests.wire_server import CUT, END, HANG, LAST_CHUNK, WireServer, chunk, stream_head

FRAMINGS = {
    "chunked": [stream_head(), *map(chunk, pieces(DATA, 777)), LAST_CHUNK],
    "with a length": [stream_head(chunked=False, Content_Length=str(len(DATA))), *pieces(DATA, 777)],
    "until the end": [stream_head(chunked=False, Connection="close"), *pieces(DATA, 777), END],
    "with long trailers": [stream_head(), chunk(DATA) + b"0\r\nTrailer: " + b"x" * 3000 + b"\r\n\r\n"],
    "with chunk extensions": [stream_head(), b"5;a=b\r\ndata:\r\n", chunk(DATA[5:]), b"0;x\r\nTrailer: y\r\n\r\n"],
}


@pytest.mark.parametrize("steps", FRAMINGS.values(), ids=FRAMINGS)
def test_streams_are_read_in_every_framing(steps):
    with WireServer(steps) as server:
        assert read(EventSource(fetch(server.url), 5.0)) == DATA


def test_a_chunked_stream_is_read_wherever_it_is_cut():
    wire = b"".join(map(chunk, pieces(DATA[:300], 7))) + LAST_CHUNK
    dice = random.Random(1)

    for _ in range(30):
        edges = [0, *sorted(dice.randint(0, len(wire)) for _ in range(5)), len(wire)]
        parts = [part for a, b in pairwise(edges) for part in (wire[a:b], 0.001)]
        with WireServer([stream_head(), *parts]) as server:
            assert read(EventSource(fetch(server.url), 5.0)) == DATA[:300], edges


def test_an_empty_stream_ends_cleanly():
    with WireServer([stream_head(chunked=False, Content_Length="0"), HANG]) as server:
        assert read(EventSource(fetch(server.url), 5.0)) == b""


def test_bytes_are_returned_as_soon_as_they_arrive():
    resume = threading.Event()
    waiter = waiting.new_waiter()

    with WireServer([stream_head() + b"b\r\ndata: first", b"\r\n", resume, chunk(b"\n\n"), LAST_CHUNK]) as server:
        chunks = EventSource(fetch(server.url), 5.0).chunks(waiter)
        first = next(piece for piece in chunks if piece)
        resume.set()
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
def test_an_incomplete_stream_is_unavailable(steps):
    with WireServer(steps) as server, pytest.raises(UpstreamUnavailable):
        read(EventSource(fetch(server.url), 5.0))


def test_a_silent_stream_times_out():
    with WireServer([stream_head(), chunk(b"data: x\n\n"), HANG]) as server:
        with pytest.raises(UpstreamTimeout):
            read(EventSource(fetch(server.url), 0.1))

        assert server.wait_for(lambda: server.hung_up == 1)


def test_pings_prevent_a_timeout():
    pings = [step for _ in range(8) for step in (0.05, chunk(b": ping\n\n"))]

    with WireServer([stream_head(), *pings, LAST_CHUNK]) as server:
        assert read(EventSource(fetch(server.url), 0.2)) == b": ping\n\n" * 8


def test_a_chunk_is_empty_when_the_waiter_woke_for_another_reason():
    waiter = waiting.new_waiter()
    waiter.wake_at = monotonic() + 0.05

    with WireServer([stream_head(), HANG]) as server:
        source = EventSource(fetch(server.url), 5.0)
        assert next(source.chunks(waiter)) == b""

        source.close()
        assert server.wait_for(lambda: server.hung_up == 1)
    waiter.close()


REJECTED = {
    "compressed": stream_head(Content_Encoding="gzip"),
    "JSON": stream_head("application/json"),
    "HTML": stream_head("text/html"),
    "no type": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("head", REJECTED.values(), ids=REJECTED)
def test_a_response_that_is_no_plain_event_stream_is_rejected_and_closed(head):
    with WireServer([head, HANG]) as server:
        with pytest.raises(UpstreamError):
            EventSource(fetch(server.url), 5.0)

        assert server.wait_for(lambda: server.hung_up == 1)


def test_the_readers_own_time_does_not_count_as_silence():
    waiter = waiting.new_waiter()
    resume = threading.Event()

    with WireServer([stream_head(), chunk(b"data: a\n\n"), resume, 0.05, chunk(b"data: b\n\n"), LAST_CHUNK]) as server:
        chunks = EventSource(fetch(server.url), 0.5).chunks(waiter)
        first = next(chunk for chunk in chunks if chunk)
        resume.wait(0.6)  # Not set here: the reader takes longer than the silence timeout.
        resume.set()
        rest = b"".join(chunks)

    waiter.close()
    assert (first, rest) == (b"data: a\n\n", b"data: b\n\n")


def test_cancelling_the_waiter_ends_a_read():
    waiter = waiting.new_waiter()

    with WireServer([stream_head(), HANG]) as server:
        threading.Timer(0.05, waiter.cancel, [ClientDisconnected()]).start()
        with pytest.raises(ClientDisconnected):
            read(EventSource(fetch(server.url), 30.0), waiter)

        assert server.wait_for(lambda: server.hung_up == 1)
    waiter.close()


@responses.activate
def test_a_response_mocked_by_responses_can_be_read():
    responses.get("http://engine.test/", body=DATA, content_type="text/event-stream")

    assert read(EventSource(fetch("http://engine.test/"), 5.0)) == DATA
