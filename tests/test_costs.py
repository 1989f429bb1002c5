"""The cost of an event and of a stream in calls and bytes, which are the same on every machine.

benchmarks/ measures speed.
"""

import socket
import sys
import threading
import tracemalloc
from collections import Counter
from contextlib import closing, contextmanager
from time import monotonic

import pytest
from flask import Flask

from bff.http.responses import EventStream, StreamOptions
from bff.upstream.http import EventSource, new_session, send
from bff.upstream.reconnect import ReconnectingReply
from bff.upstream.relay import Relay
from tests.wire_server import chunk, stream_head

pytestmark = pytest.mark.live
"""Not repeated under gevent, where calls of other tests' greenlets in the same thread would be counted."""

EVENT = b'event: message\ndata: {"type":"progress","text":"a word or two of the answer "}\nid: 1795174194760-1\n\n'


@contextmanager
def broker():
    """A broker's URL and its connections. It opens each stream; the test sends the events."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    connections = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(65536)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(connection)  # Before the client can read its first event.
            connection.sendall(stream_head() + chunk(b"event: processing\ndata: \nid: 1-0\n\n"))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            connection.close()


def open_stream(session, url: str):
    """A relayed stream, from the broker's connection to the response that a server iterates."""
    source = EventSource(send(session, "GET", url, headers={}, connect=5, deadline=monotonic() + 5), 60.0)
    reply, relay = ReconnectingReply(lambda *_: None, source), Relay("request-1")
    with Flask(__name__).test_request_context():
        return EventStream(
            lambda waiter: relay(reply.events(waiter)), StreamOptions(b": beat\n\n", 60.0), environ={}, close=reply.close
        )


def test_an_event_takes_one_read_one_write_and_few_calls():
    calls: Counter[str] = Counter()

    def count(_, event, argument):
        if event == "c_call":
            calls[argument.__name__] += 1
        elif event == "call":
            calls["python"] += 1

    with broker() as (url, connections), closing(open_stream(new_session(), url)) as response:
        frames = iter(response.response)
        next(frames)
        for number in range(120):
            connections[-1].sendall(chunk(EVENT))
            if number == 20:
                sys.setprofile(count)
            frame = next(frames)
            if number == 119:
                sys.setprofile(None)
            assert frame.startswith(b"data: {"), "one write per event"

    per_event = {name: calls[name] / 100 for name in ("recv", "recv_into", "settimeout", "python")}
    assert per_event["recv"] <= 2.1, "one with the event, and one that may be empty"
    assert per_event["recv_into"] == per_event["settimeout"] == 0
    assert per_event["python"] <= 56, per_event


def test_events_that_arrive_together_are_written_at_once():
    with broker() as (url, connections), closing(open_stream(new_session(), url)) as response:
        frames = iter(response.response)
        next(frames)
        connections[-1].sendall(chunk(EVENT) * 100)

        frame = next(frames)

    assert frame.count(b"\n\n") == 100


def test_an_open_stream_takes_little_memory():
    streams = []

    with broker() as (url, _):
        session = new_session(pool_size=200)
        for number in range(150):
            response = open_stream(session, url)
            next(frames := iter(response.response))
            streams.append((response, frames))
            if number == 49:
                tracemalloc.start()
                before = tracemalloc.get_traced_memory()[0]
        per_stream = (tracemalloc.get_traced_memory()[0] - before) / 100
        tracemalloc.stop()
        for response, _ in streams:
            response.close()

    assert per_stream < 18 * 1024, f"{per_stream:.0f} bytes"
