import io
import json

import pytest
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.serving import DechunkedInput

from bff.errors import InvalidRequest, LengthRequired, TooLarge, UnsupportedMediaType
from bff.http import request_body
from bff.http.request_body import READ_BYTES, parse
from bff.upstream.messages import ChatRequest

LIMIT = 1024


def read(environ: dict, limit: int = LIMIT) -> bytes:
    return request_body.read(environ, limit, 30.0)


def declared(body: bytes, length: str | None = None, **more) -> dict:
    length = str(len(body)) if length is None else length
    return {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(body)} | more


def chunked(stream, **more) -> dict:
    return {"CONTENT_TYPE": "application/json", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": stream} | more


def by_gunicorn(wire: bytes) -> Body:
    return Body(ChunkedReader(None, IterUnreader(iter([wire]))))


def by_werkzeug(wire: bytes) -> DechunkedInput:
    return DechunkedInput(io.BytesIO(wire))


class Trickle:
    """Returns one byte per read."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)

    def read(self, size: int) -> bytes:
        return self._body.read(min(size, 1))


class Broken:
    """A connection that is lost after a few bytes."""

    def __init__(self) -> None:
        self._pieces = iter([b'{"mess'])

    def read(self, size: int) -> bytes:
        for piece in self._pieces:
            return piece
        raise ConnectionResetError


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", " application/json ;charset=utf-8"],
)
def test_json_content_types_are_accepted(content_type):
    assert read(declared(b"{}", CONTENT_TYPE=content_type)) == b"{}"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/html; application/json"]
)
def test_other_content_types_are_rejected(content_type):
    with pytest.raises(UnsupportedMediaType):
        read(declared(b"{}", CONTENT_TYPE=content_type))


def test_a_request_without_a_content_type_is_rejected():
    environ = declared(b"{}")
    del environ["CONTENT_TYPE"]

    with pytest.raises(UnsupportedMediaType):
        read(environ)


@given(st.binary(max_size=LIMIT))
def test_declared_and_chunked_bodies_are_read_unchanged(body):
    assert read(declared(body)) == body
    assert read(chunked(io.BytesIO(body))) == body
    assert read(declared(body, **{"wsgi.input": Trickle(body)})) == body


def test_a_body_of_several_reads_is_complete():
    body = bytes(range(256)) * (READ_BYTES // 256 * 2) + b"end"

    assert read(declared(body), len(body)) == body
    assert read(chunked(io.BytesIO(body)), len(body)) == body


def test_bytes_after_a_declared_body_are_not_read():
    stream = io.BytesIO(b"{}GET / HTTP/1.1")

    body = read(declared(b"{}", **{"wsgi.input": stream}))

    assert body == b"{}"
    assert stream.read() == b"GET / HTTP/1.1"


@pytest.mark.parametrize("length", ["", "-1", "+2", "2.0", "0x2", "two", " 2", "²"])
def test_an_invalid_content_length_is_rejected(length):
    with pytest.raises(LengthRequired):
        read(declared(b"{}", length))


def test_a_request_without_a_length_is_rejected():
    environ = declared(b"{}")
    del environ["CONTENT_LENGTH"]

    with pytest.raises(LengthRequired):
        read(environ)


def test_a_body_as_large_as_the_limit_is_accepted():
    body = b"x" * LIMIT

    assert read(declared(body)) == body
    assert read(chunked(io.BytesIO(body))) == body


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 20, "9" * 5000], ids=["by one", "by far", "beyond any number"])
def test_a_body_declared_over_the_limit_is_rejected_unread(length):
    stream = io.BytesIO(b"x" * (LIMIT + 1))

    with pytest.raises(TooLarge):
        read(declared(b"", length, **{"wsgi.input": stream}))

    assert stream.tell() == 0


def test_a_chunked_body_is_rejected_once_it_exceeds_the_limit():
    stream = io.BytesIO(b"x" * LIMIT * 10)

    with pytest.raises(TooLarge):
        read(chunked(stream))

    assert stream.tell() == LIMIT + 1


def test_a_body_shorter_than_declared_is_rejected():
    with pytest.raises(InvalidRequest):
        read(declared(b'{"mess', "100"))


@pytest.mark.parametrize("environ", [declared(b"", "100"), chunked(None)], ids=["declared", "chunked"])
def test_a_lost_connection_is_an_invalid_request(environ):
    with pytest.raises(InvalidRequest):
        read(environ | {"wsgi.input": Broken()})


@pytest.mark.parametrize("server", [by_gunicorn, by_werkzeug])
def test_chunked_bodies_are_read_from_real_servers(server):
    wire = b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n'

    assert read(chunked(server(wire))) == b'{"a": 1}'


@pytest.mark.parametrize(
    "wire",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"2\r\n{}\r\n", b"5\r\n{}", b""],
    ids=["no size", "no line end", "no last chunk", "cut", "empty"],
)
@pytest.mark.parametrize("server", [by_gunicorn, by_werkzeug])
def test_an_invalid_chunk_is_an_invalid_request(server, wire):
    with pytest.raises(InvalidRequest):
        read(chunked(server(wire)))


SMALL = 64 * 1024
LARGE = {
    "fields": b'{"message":"x",' + b",".join(b'"%d":1' % number for number in range(9000)) + b"}",
    "empty lists": b'{"message":"x","a":[' + b"[]," * SMALL + b"1]}",
    "numbers": b'{"message":"x","a":[' + b"1," * SMALL + b"1]}",
    "strings": b'{"message":"x","a":[' + b'"",' * SMALL + b"1]}",
    "white space": b'{"message":"x"' + b" " * 2 * SMALL + b"}",
    "white space in front": b" " * 2 * SMALL + b'{"message":"x"}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_a_large_body_with_too_many_fields_is_rejected_unparsed(body):
    with pytest.raises(InvalidRequest) as rejected:
        parse(ChatRequest, body)

    assert str(rejected.value) == "The body has too many fields."


@given(st.text(min_size=1).filter(str.strip), st.integers(1, 5))
def test_a_large_text_may_contain_anything(text, escaped):
    large = (text * (2 * SMALL // len(text)) + '\\"[{,' * SMALL).replace("\0", "")
    body = json.dumps({"message": large, "more": "\\" * escaped}).encode()

    assert parse(ChatRequest, body).message == large


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"message":"x","more":%s}',
        b'{"more":[1,{"a":%s}],"message":"x"}',
        b'{"message":"\\"","more":%s}',
        b'{"message":"\\\\","more":%s}',
        b'{"message":"' + b"x" * SMALL + b'","more":%s}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_numbers_that_json_does_not_have_are_rejected(body, constant):
    with pytest.raises(InvalidRequest) as rejected:
        parse(ChatRequest, body % constant)

    assert str(rejected.value) == "The body is not valid JSON."


@given(st.text(), st.sampled_from(["NaN", "Infinity", "-Infinity"]), st.text())
def test_a_text_may_contain_their_names(before, name, after):
    message = f"{before}{name}{after}".replace("\0", "")
    body = json.dumps({"message": message, name: [message]}).encode()

    assert parse(ChatRequest, body).message == message


@pytest.mark.parametrize(("preamble", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_deeply_nested_body_is_rejected(preamble, closing):
    def nested(depth: int) -> bytes:
        return f'{{"message":"x","more":{preamble * depth}1{closing * depth}}}'.encode()

    assert parse(ChatRequest, nested(50)).message == "x"
    for depth in (250, 5000, 10_000):
        with pytest.raises(InvalidRequest):
            parse(ChatRequest, nested(depth))


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "x"])
def test_a_compressed_body_is_rejected(encoding):
    with pytest.raises(UnsupportedMediaType):
        read(declared(b"{}", HTTP_CONTENT_ENCODING=encoding))

    assert read(declared(b"{}", HTTP_CONTENT_ENCODING="Identity")) == b"{}"
