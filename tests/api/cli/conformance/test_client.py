"""The judge's HTTP client: it sees how a body ends, and accepts nothing invalid."""

import socket
import ssl
from time import monotonic

import pytest

from bff.api.cli.conformance.client import Address, ClientError, Request, Response, TimedOut, Unreachable, send
from tests.live import free_port
from tests.wire_server import CUT, END, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

PATH = "/api/chat/stream"


def get(server: WireServer, seconds: float = 5, method: str = "GET") -> Response:
    return send(Address.parse(server.url), Request(method, PATH, {}), monotonic() + seconds)


def read(*steps: object, seconds: float = 5) -> tuple[bytes, str]:
    """The body of a response, and how it ended."""
    with WireServer(steps) as server, get(server, seconds) as response:
        deadline = monotonic() + seconds
        body = b"".join(iter(lambda: response.read(deadline), b""))
        return body, response.ended


CHUNKS = chunk(b"one ") + chunk(b"two") + LAST_CHUNK


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([stream_head() + CHUNKS], (b"one two", "clean")),
        ([stream_head(), chunk(b"one"), CUT], (b"one", "cut")),
        ([stream_head(), chunk(b"one"), b"5\r\ntw", END], (b"onetw", "cut")),
        ([stream_head(), chunk(b"one"), b"0\r\n", END], (b"one", "cut")),
        ([stream_head(), b"3;name=value\r\none\r\n" + LAST_CHUNK], (b"one", "clean")),
        ([stream_head(chunked=False), b"one", END], (b"one", "closed")),
        ([reply(b"one")], (b"one", "clean")),
        ([reply(b"")], (b"", "clean")),
        ([reply(b"one")[:-1], END], (b"on", "cut")),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"one")], (b"one", "clean")),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], (b"", "clean")),
    ],
)
def test_the_end_of_a_body_is_seen(steps, expected):
    assert read(*steps) == expected


@pytest.mark.parametrize("at", range(1, len(CHUNKS)))
def test_chunks_may_be_cut_anywhere(at):
    assert read(stream_head() + CHUNKS[:at], 0.001, CHUNKS[at:]) == (b"one two", "clean")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        stream_head() + b"zz\r\n",
        stream_head() + b"3\r\none two\r\n",
        stream_head() + chunk(b"one") + b"0\r\nX-Trailer: 1\r\n\r\n",
    ],
)
def test_an_invalid_response_is_refused(data):
    with pytest.raises(ClientError):
        read(data, END)


def test_waiting_is_bounded():
    with WireServer([HANG]) as server, pytest.raises(TimedOut):
        get(server, 0.05)
    with WireServer([stream_head(), HANG]) as server, get(server) as response, pytest.raises(TimedOut):
        response.read(monotonic() + 0.05)


def test_a_server_that_does_not_listen_is_unreachable():
    with pytest.raises(Unreachable):
        send(Address("127.0.0.1", free_port(), False, ""), Request("GET", "/", {}), monotonic() + 1)


def test_a_body_after_a_head_request_is_noticed():
    for extra, is_silent in ((b"", True), (b"data", False)):
        with WireServer([stream_head() + extra, END]) as server, get(server, method="HEAD") as response:
            assert response.is_silent(monotonic() + 1) is is_silent


def test_all_addresses_of_a_host_are_tried(monkeypatch):
    """As of a `localhost` that is ::1 first, with a server that listens on 127.0.0.1."""
    with WireServer([reply(b"one")]) as server:
        address = Address.parse(server.url)
        families = (socket.AF_INET, ("127.0.0.1", free_port())), (socket.AF_INET, ("127.0.0.1", address.port))
        infos = [(family, socket.SOCK_STREAM, 0, "", name) for family, name in families]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)

        with send(address, Request("GET", PATH, {}), monotonic() + 5) as response:
            assert response.read_all(monotonic() + 5) == b"one"


def test_tls_is_verified(monkeypatch, authority, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with WireServer([reply(b"one")], tls=context) as server:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            get(server)
        monkeypatch.setenv("SSL_CERT_FILE", ca_file)
        with get(server) as response:
            assert response.read_all(monotonic() + 5) == b"one"


def test_a_host_without_an_address_is_unreachable():
    with pytest.raises(Unreachable, match="has no address"):
        send(Address.parse("http://no-such-host.invalid"), Request("GET", "/", {}), monotonic() + 1)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "/chat"])
def test_an_invalid_url_is_refused(url):
    with pytest.raises(ValueError, match="must be"):
        Address.parse(url)


def test_a_url_may_have_a_prefix():
    with WireServer([reply()]) as server:
        send(Address.parse(f"{server.url}/assistant/"), Request("GET", PATH, {}), monotonic() + 5).close()

        assert server.requests[0].path == f"/assistant{PATH}"
