"""Request heads: limited in size, and refused at once if they are invalid or ambiguous."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live import DEADLINE, Browser, status_of
from tests.security.matrix import MATRIX

pytestmark = pytest.mark.live

READ_SIZE = 8192
"""Bytes that gunicorn reads at once. A client that sends more may be reset before it has read the response."""
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
REFUSED = {
    "too many fields": (HEAD + b"X-A: b\r\n" * 70 + b"\r\n", {431}),
    "a field that is too long": (HEAD + b"X-A: " + b"b" * 9000 + b"\r\n\r\n", {431}),
    "endless fields": (HEAD + b"X-A: " + b"b" * 1_000_000, {431}),
    "a line that is too long": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", {400}),
    "a length and chunks": (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", {400}),
    "a folded field": (HEAD + b"X-A: b\r\n c\r\n\r\n", {400}),
    "a control character": (HEAD + b"X-A: b\x00c\r\n\r\n", {400}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
}


def exchange(port: int, request: bytes) -> bytes:
    """The whole response, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        response = b""
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                response += data
        except TimeoutError:
            raise
        except OSError:
            pass  # The server closed the connection before it had read everything.
        return response


def test_oversized_and_ambiguous_heads_are_refused(start):
    server = start()

    with ThreadPoolExecutor(len(REFUSED)) as threads:
        responses = dict(zip(REFUSED, threads.map(lambda case: exchange(server.port, case[0]), REFUSED.values()), strict=True))

    for name, (request, statuses) in REFUSED.items():
        unread = not responses[name] and len(request) > READ_SIZE
        assert unread or int(responses[name].split()[1]) in statuses, (name, responses[name][:100])
    assert status_of(Browser(server).request("GET", "/healthz")) == 200


def test_mutated_requests_break_nothing(start):
    server, rng = start(), random.Random(8)
    requests = [
        f"{route.replace('<message_id>', 'm-1')} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        for route in MATRIX
    ]

    def mutated(_: int) -> bytes:
        request = bytearray(rng.choice(requests))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(request))
            request[at : at + rng.randint(0, 3)] = rng.choice(
                [b"", b"\r\n", b"\x00", b" ", b"\xff", b":", bytes([rng.randrange(256)])]
            )
        return bytes(request)

    mutants = [mutated(number) for number in range(400)]
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda request: exchange(server.port, request), mutants))

    assert sum(map(bool, responses)) > len(mutants) / 2, "the others end before the request is complete"
    for request, response in zip(mutants, responses, strict=True):
        status = int(response.split()[1]) if response else 0
        assert status < 500 or status in {501, 505}, request
        assert b"Traceback" not in response
    assert "Traceback" not in server.log
    assert status_of(Browser(server).request("GET", "/healthz")) == 200
