"""A refusal of a large upload reaches its client, which is still sending: the connection is not reset before it was read.

See RFC 9112, section 9.6.
"""

import socket
from contextlib import closing, suppress
from itertools import repeat
from time import monotonic, sleep

import pytest

from tests.live import Browser, head, status_of

pytestmark = pytest.mark.live
MIB = 2**20
BODY = b'{"message": "' + b"x" * 8 * MIB + b'"}'
SHORT = {"REQUEST_SECONDS": "1"}


@pytest.fixture
def server(share, kind):
    return share(kind, MAX_BODY_BYTES=str(MIB), **SHORT)


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def response(sock: socket.socket) -> bytes:
    """All of it, until the server closes its sending side. Raises ConnectionResetError."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


REFUSALS = {
    "forbidden": (b"X-Proxy-Secret: proxy", b"X-Proxy-Secret: no", b"403"),
    "unauthorized": (b"X-Forwarded-User: ada", b"X-Forwarded-User: .", b"401"),
    "too large": (b"", b"", b"413"),
}


@pytest.mark.parametrize("path", ["/api/chat/stream", "/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize(("old", "new", "status"), REFUSALS.values(), ids=REFUSALS)
def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(server, path, old, new, status):
    with closing(connect(server)) as sock:
        sock.sendall(head("POST", path, body=BODY).replace(old, new) + BODY)
        answer = response(sock)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith((b"}", b"}\n"))


def test_a_chunked_upload_gets_the_refusal(server):
    with closing(connect(server)) as sock:
        request = head("POST", "/api/chat/stream", "Content-Type: application/json", "Transfer-Encoding: chunked")
        sock.sendall(request + chunks(BODY))

        assert response(sock).startswith(b"HTTP/1.1 413")


def test_the_server_closes_its_sending_side_with_the_response(server):
    with closing(connect(server)) as sock:
        sock.sendall(head("POST", "/api/chat", body=BODY) + BODY[:1000])
        started_at = monotonic()
        answer = response(sock)

        assert monotonic() - started_at < 0.8
        assert b"\r\nConnection: close\r\n" in answer
        sock.sendall(BODY[1000:100_000])  # Not reset: it is still read.


def test_a_small_upload_that_is_refused_keeps_its_connection(share):
    server = share("gunicorn", MAX_BODY_BYTES=str(MIB), **SHORT)
    request = head("POST", "/api/nothing", body=b"x" * 20_000) + b"x" * 20_000
    with closing(connect(server)) as sock:
        for _ in range(2):
            sock.sendall(request)
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 404")
            assert b"Connection: close" not in answer


def test_an_upload_that_goes_on_is_cut_after_request_seconds(server):
    with closing(connect(server)) as sock:
        sock.sendall(head("POST", "/api/chat", body=BODY))
        started_at = monotonic()
        response(sock)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_slowly(sock)
        assert 0.5 < monotonic() - started_at < 5


def send_slowly(sock: socket.socket) -> None:
    """A byte every 20 ms, for half a minute at most."""
    sock.settimeout(0.02)
    for _ in range(1500):
        sock.send(b"x")
        with suppress(TimeoutError):
            while sock.recv(65536):
                pass
            sleep(0.02)  # The server has closed its sending side: `recv` no longer waits.


def test_an_endless_upload_is_cut_after_some_megabytes(share, kind):
    server = share(kind, MAX_BODY_BYTES=str(MIB), REQUEST_SECONDS="20")
    sent = 0
    with closing(connect(server)) as sock:
        sock.sendall(head("POST", "/api/chat", "Content-Length: 999999999999", "Content-Type: application/json"))
        with suppress(ConnectionResetError, BrokenPipeError):
            for piece in repeat(bytes(64 * 1024), 4000):
                sent += sock.send(piece)

    assert MIB < sent < 100 * MIB


def test_a_refused_upload_holds_no_slot(share, kind):
    server = share(kind, MAX_BODY_BYTES=str(MIB), MAX_STREAMS="1", MAX_STREAMS_PER_USER="1", REQUEST_SECONDS="20")
    browser = Browser(server)
    with closing(connect(server)) as sock:
        sock.sendall(head("POST", "/api/chat/stream", body=BODY))
        response(sock)

        assert status_of(browser.say("hello")) == 200


def test_other_requests_go_on_while_an_upload_is_dropped(share, kind):
    server = share(kind, MAX_BODY_BYTES=str(MIB), REQUEST_SECONDS="20")
    with closing(connect(server)) as sock:
        sock.sendall(head("POST", "/api/chat", body=BODY * 4))
        response(sock)
        for _ in range(4):
            sock.sendall(BODY)
            assert status_of(Browser(server).request("GET", "/healthz")) == 200
