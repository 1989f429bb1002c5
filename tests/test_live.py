"""The tests' HTTP client: it never takes a broken stream for a complete one."""

import http.client

import pytest

from tests.live import Browser
from tests.wire_server import CUT, END, LAST_CHUNK, WireServer, chunk, stream_head

FRAME = chunk(b"data: {}\n\n")


def test_a_complete_stream_is_read_to_its_end():
    with WireServer([stream_head(), FRAME, FRAME, LAST_CHUNK]) as server, Browser(server.url).say("hello") as reply:
        assert list(reply.frames()) == ["data: {}\n"] * 2


@pytest.mark.parametrize("steps", [[END], [b"ff\r\n", END], [0.05, CUT]], ids=["between chunks", "inside one", "by a reset"])
def test_a_broken_stream_raises(steps):
    with WireServer([stream_head(), FRAME, *steps]) as server, Browser(server.url).say("hello") as reply:
        frames = reply.frames()

        assert next(frames) == "data: {}\n"
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            next(frames)
