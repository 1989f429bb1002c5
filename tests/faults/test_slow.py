"""Slow readers and slow requests use little memory, are disconnected, and delay nobody else."""

import json
import socket
from time import monotonic

import pytest

from tests.faults.load import Clients, Stream, Wire, in_order
from tests.live import BROKER_KEY, Server, eventually, head, text_of

WORDS = " ".join("." * 1000 + str(number) for number in range(700))
"""Words of about 1 KiB each."""
MIB = 1024 * 1024


def lateness(streams: list[Stream]) -> list[float]:
    """Seconds from an event's entry into the broker's log, according to its id, to its arrival; sorted."""
    events = (event for stream in streams for event in stream.events if "id" in event)
    return sorted(event["at"] - int(event["id"].split("-")[0]) / 1000 for event in events)


def percentile(values: list[float], percent: int) -> float:
    return values[len(values) * percent // 100]


def connected(server: Server, request: bytes) -> socket.socket:
    """Sends the request; the response stays in a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(request)
    return sock


def read_to_the_end(sock: socket.socket, wire: Wire) -> list[dict]:
    events = []
    try:
        while data := sock.recv(65536):
            events += wire.feed(data)
    except ConnectionResetError:
        pass
    return events


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.live
@pytest.mark.timeout(90)
def test_a_stalled_reader_is_disconnected_and_can_resume(start):
    broker = start("broker", BROKER_API_KEY=BROKER_KEY)
    server = start(BROKER_BASE_URL=broker.url, BROKER_API_KEY=BROKER_KEY, SLOW_READER_SECONDS="8")
    message = json.dumps({"message": f"/slow 14 {WORDS}"}).encode()
    request = head("POST", "/api/chat/stream", body=message) + message

    with Clients(server.port) as clients:
        before = [clients.send(f"/slow 3 {' '.join('x' * 150)}") for _ in range(20)]
        assert clients.wait_for(lambda: all(stream.done for stream in before))

        wire, memory = Wire(), server.memory()
        sock = connected(server, request)
        assert eventually(lambda: sock.recv(65536, socket.MSG_PEEK))
        stalled_at = monotonic()
        during = [clients.send(f"/slow 9 {' '.join('x' * 450)}") for _ in range(20)]
        peak = 0

        def is_disconnected() -> bool:
            nonlocal peak
            peak = max(peak, server.memory())
            return "aborted" in server.ended

        assert eventually(is_disconnected, 30)
        elapsed = monotonic() - stalled_at
        assert clients.wait_for(lambda: all(stream.done for stream in during), 20)

    events = read_to_the_end(sock, wire)
    sock.close()
    path = f"/api/chat/stream/{wire.headers['x-message-id']}"
    rest = connected(server, head("GET", path, f"Last-Event-ID: {events[-1]['id']}"))
    events += read_to_the_end(rest, Wire())
    rest.close()

    assert 6 < elapsed < 20, "SLOW_READER_SECONDS after the buffers were full"
    assert not wire.ended
    assert (text_of(events), events[-1]["type"]) == (WORDS, "complete")
    assert in_order(events)
    assert peak - memory < 2 * MIB
    assert percentile(lateness(during), 50) < percentile(lateness(before), 50) + 0.02
    assert percentile(lateness(during), 99) < 2 * percentile(lateness(before), 99) + 0.1


def trickled(server: Server, head_bytes: bytes, body: bytes = b"") -> tuple[bytes, float]:
    """Sends a byte every 0.2 s. Returns the response, and the seconds until the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as sock:
        sock.sendall(head_bytes)
        started = monotonic()
        response = b""
        for byte in body:
            try:
                data = sock.recv(65536)
                response += data
                if not data:
                    break
            except TimeoutError:
                sock.sendall(bytes([byte]))
            except ConnectionResetError:
                break
        return response, monotonic() - started


@pytest.mark.live
def test_a_slow_request_body_is_disconnected(start):
    server = start(REQUEST_SECONDS="0.6")
    body = b'{"message": "' + b"x" * 84 + b'"}'

    response, elapsed = trickled(server, head("POST", "/api/chat/stream", body=body), body[:93])

    assert response.startswith(b"HTTP/1.1 400 ")
    assert b'"invalid_request"' in response
    assert 0.4 < elapsed < 3


@pytest.mark.slow
@pytest.mark.live
def test_a_slow_request_head_is_disconnected(start):
    server = start()

    response, elapsed = trickled(server, b"GET /healthz HTTP/1.1\r\nX-Long: ", b"x" * 80)

    assert not response
    assert 4 < elapsed < 10, "gunicorn's keepalive also limits a request's head"
