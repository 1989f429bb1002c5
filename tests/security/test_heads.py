"""What comes before a body: bounded, and refused at once in whatever shape it makes no sense."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live import DEADLINE, Browser, status_of
from tests.security.matrix import MATRIX

pytestmark = pytest.mark.live

READ_MOST = 8192
"""Bytes that are read at once: what has sent more may be hung up on before it has seen its answer."""
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
REFUSED = {
    "too many fields": (HEAD + b"X-A: b\r\n" * 70 + b"\r\n", {431}),
    "a field that is too long": (HEAD + b"X-A: " + b"b" * 9000 + b"\r\n\r\n", {431}),
    "fields without an end": (HEAD + b"X-A: " + b"b" * 1_000_000, {431}),
    "a line that is too long": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", {400}),
    "a length and chunks": (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", {400}),
    "a folded field": (HEAD + b"X-A: b\r\n c\r\n\r\n", {400}),
    "a control character": (HEAD + b"X-A: b\x00c\r\n\r\n", {400}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
}


def said_to(port: int, request: bytes) -> bytes:
    """All that is answered, until the server hangs up or says it will not."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        answer = b""
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                answer += piece
        except TimeoutError:
            raise
        except OSError:
            pass  # It hung up on what we had still to say.
        return answer


def test_a_head_that_is_too_large_or_ambiguous_is_refused(start):
    server = start()

    with ThreadPoolExecutor(len(REFUSED)) as threads:
        answers = dict(zip(REFUSED, threads.map(lambda case: said_to(server.port, case[0]), REFUSED.values()), strict=True))

    for name, (request, statuses) in REFUSED.items():
        unseen = not answers[name] and len(request) > READ_MOST
        assert unseen or int(answers[name].split()[1]) in statuses, (name, answers[name][:100])
    assert status_of(Browser(server).request("GET", "/healthz")) == 200


def test_what_is_hardly_http_breaks_nothing(start):
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

    wire = [mutated(number) for number in range(400)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda request: said_to(server.port, request), wire))

    assert sum(map(bool, answers)) > len(wire) / 2, "the others broke off before there was anything to answer"
    for request, answer in zip(wire, answers, strict=True):
        assert not answer or answer.split()[1][:1] in {b"1", b"2", b"3", b"4"} or answer.split()[1] in {b"501", b"505"}, request
        assert b"Traceback" not in answer
    assert "Traceback" not in server.log
    assert status_of(Browser(server).request("GET", "/healthz")) == 200
