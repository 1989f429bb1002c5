"""Heads of responses are read as http.client reads them, whoever parses them."""

import http.client
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bff.upstream.http.response import NonBlockingResponse
from bff.upstream.http.response_head import parse_head

NAMES = st.sampled_from(
    ["Content-Length", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "X-A", "x a", "", "Content-Type"]
)
VALUES = st.sampled_from(
    [
        "5",
        "0",
        "-1",
        "+5",
        "5, 5",
        "\xb2",
        "abc",
        "",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "close",
        "Keep-Alive, Close",
        "a:b",
    ]
)
SPACES = st.sampled_from(["", " ", "  ", "\t", "\x0b", "\x85"])
LINE_ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r\n folded\r\n"])
LINES = st.builds("{}{}:{}{}{}{}".format, NAMES, st.sampled_from(["", "", " "]), SPACES, VALUES, SPACES, LINE_ENDS)
STARTS = st.sampled_from(
    [
        *(
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200",
            "HTTP/1.1 200 ",
            "HTTP/1.1  200  Fine  thing ",
            "HTTP/1.0 200 OK",
            "HTTP/1.1 204 No",
        ),
        *(
            "HTTP/1.1 304 Same",
            "HTTP/1.1 999 x",
            "HTTP/1.1 099 x",
            "HTTP/1.1 200OK",
            "HTTP/2 200",
            "HTTP/1.1 2000 x",
            "HTTP/1.1 x",
        ),
    ]
)
HEADS = st.builds(lambda start, lines: f"{start}\r\n{''.join(lines)}\r\n", STARTS, st.lists(LINES, max_size=6))


def read(kind: type[http.client.HTTPResponse], head: bytes, method: str) -> dict[str, object] | str:
    """What a response's attributes are after its head was read; or the name of the error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(head)
        theirs.shutdown(socket.SHUT_WR)
        response = kind(ours, method=method)
        try:
            response.begin()
        except (http.client.HTTPException, ValueError) as error:
            return type(error).__name__
        finally:
            response.close()
    names = ("version", "status", "code", "reason", "chunked", "chunk_left", "length", "will_close")
    return {name: getattr(response, name) for name in names} | {"headers": response.headers.items()}


@given(HEADS, st.sampled_from(["GET", "POST", "HEAD"]))
@example("HTTP/1.1 200 OK\r\n" + "X-A: 1\r\n" * 100 + "\r\n", "GET")
@example("HTTP/1.1 200 OK\r\n" + "X-A: 1\r\n" * 99 + "\r\n", "GET")
def test_heads_are_read_as_by_http_client(head, method):
    data = head.encode("latin-1")

    assert read(NonBlockingResponse, data, method) == read(http.client.HTTPResponse, data, method)


@pytest.mark.parametrize(
    ("head", "is_well_formed"),
    [
        ("HTTP/1.1 200 OK\r\nServer: gunicorn\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        ("HTTP/1.1 204\r\n\r\n", True),
        ("HTTP/1.0 200 OK\r\n\r\n", False),
        ("HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\n\r\n", False),
        ("HTTP/1.1 200 OK\r\nX-A: \xe9\r\n\r\n", False),
        ("HTTP/1.1 200 OK\r\nX-A\r\n\r\n", False),
    ],
)
def test_only_well_formed_heads_are_parsed_here(head, is_well_formed):
    assert (parse_head(head.encode("latin-1")) is not None) == is_well_formed
