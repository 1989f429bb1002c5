"""A request's JSON body: read whatever way it comes (declared or chunked, whole or cut, too large), and validated."""

import re
import socket
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from bff.errors import InvalidRequest, LengthRequired, TooLarge, UnsupportedMediaType
from bff.http import waiting

Model = TypeVar("Model", bound=BaseModel)

PIECE_BYTES: Final = 1024 * 1024
SMALL_BYTES: Final = 64 * 1024
"""Parsed in a millisecond or two, whatever is in it."""
STRINGS_MAX: Final = 1000
STRING_BESIDE_BYTES: Final = 8
"""What JSON has between two strings, with room to spare."""
DIGITS_MAX: Final = 15
"""Of a declared length; more of them are too large for any limit."""


def read(environ: Mapping[str, Any], limit: int, seconds: float) -> bytes:
    """The body's bytes, at most `limit` of them, if they come within `seconds`.

    What is compressed is not unpacked: a few bytes of it can be a gigabyte.

    Raises UnsupportedMediaType, LengthRequired, TooLarge; InvalidRequest for one that ends before its declared length.
    """
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType
    if environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed.")
    declared = environ.get("CONTENT_LENGTH") or ""
    chunked = not declared and "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not re.fullmatch("[0-9]+", declared) and not chunked:
        raise LengthRequired
    length = limit + 1 if chunked or len(declared) > DIGITS_MAX else int(declared)
    if length > limit and not chunked:
        raise TooLarge
    body = _read(environ, length, seconds)
    if len(body) > limit:
        raise TooLarge
    if len(body) < length and not chunked:
        raise InvalidRequest("The body ended before its declared length.")
    return body


def validated(model: type[Model], body: bytes, strings: int = STRINGS_MAX) -> Model:
    """`strings`: how many may be in a large one.

    Raises InvalidRequest with what is wrong and where, and without what was said.
    """
    if len(body) > SMALL_BYTES:
        _check_structure(body, strings)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(error_message(error)) from None  # Its text repeats what the user said.


def _check_structure(body: bytes, most: int) -> None:
    """Few strings, and little beside them: 30 MB of `[],[],…` would take 0.8 s and 300 MB to parse."""
    in_background = max(SMALL_BYTES, most * STRING_BESIDE_BYTES)
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")  # Now every quotation mark is a string's end.
    at, strings, between = 0, 0, 0
    while (start := body.find(b'"', at)) >= 0 and (end := body.find(b'"', start + 1)) >= 0:
        strings, between, at = strings + 1, between + start - at, end + 1
        if strings > most or between > in_background:
            raise InvalidRequest("The body has too many fields.")
    if between + len(body) - at > in_background:
        raise InvalidRequest("The body has too many fields.")


def error_message(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return "The body is not valid JSON."
    what = first["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {what}." if where else f"{what}."


def _read(environ: Mapping[str, Any], most: int, seconds: float) -> bytes:
    """Up to `most` bytes. A body that trickles is given up: its connection is no longer read from."""
    stream, pieces, left = environ["wsgi.input"], [], most
    sock = waiting.client_socket(environ)
    give_up = waiting.call_later(seconds, lambda: sock.shutdown(socket.SHUT_RD)) if sock is not None else None
    try:
        while left > 0 and (piece := stream.read(min(left, PIECE_BYTES))):
            pieces.append(piece)
            left -= len(piece)
    except Exception as error:
        raise InvalidRequest("The body is not complete.") from error
    finally:
        if give_up is not None:
            give_up.cancel()
    return b"".join(pieces)
