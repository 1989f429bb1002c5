"""Reads and validates a request's JSON body: declared or chunked, with limits on size and time."""

import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from bff.errors import InvalidRequest, LengthRequired, TooLarge, UnsupportedMediaType
from bff.http import waiting

Model = TypeVar("Model", bound=BaseModel)

READ_BYTES: Final = 1024 * 1024
SMALL_BYTES: Final = 64 * 1024
"""A body of this size parses in a millisecond or two, whatever it contains."""
MAX_STRINGS: Final = 1000
STRUCTURE_BYTES_PER_STRING: Final = 8
"""More than JSON needs between two strings."""
NOT_JSON: Final = "The body is not valid JSON."
MAX_LENGTH_DIGITS: Final = 15
"""Digits of a Content-Length; a longer number exceeds every limit."""


def read(environ: Mapping[str, Any], limit: int, seconds: float, *, allow_text: bool = False) -> bytes:
    """The body, of at most `limit` bytes, read within `seconds`. `allow_text`: JSON may be declared as text/plain.

    Compressed bodies are rejected: a few bytes can expand to a gigabyte.

    Raises UnsupportedMediaType, LengthRequired, TooLarge; InvalidRequest for a body shorter than its declared length.
    """
    if not (is_json(environ) or (allow_text and content_type(environ) == "text/plain")):
        raise UnsupportedMediaType
    if environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed.")
    declared = environ.get("CONTENT_LENGTH") or ""
    chunked = not declared and "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not re.fullmatch("[0-9]+", declared) and not chunked:
        raise LengthRequired
    length = limit + 1 if chunked or len(declared) > MAX_LENGTH_DIGITS else int(declared)
    if length > limit and not chunked:
        raise TooLarge
    body = _read(environ, length, seconds)
    if len(body) > limit:
        raise TooLarge
    if len(body) < length and not chunked:
        raise InvalidRequest("The body ended before its declared length.")
    return body


def content_type(environ: Mapping[str, Any]) -> str:
    """The media type without its parameters, in lower case."""
    declared: str = environ.get("CONTENT_TYPE", "")
    return declared.partition(";")[0].strip().lower()


def is_json(environ: Mapping[str, Any]) -> bool:
    return content_type(environ) == "application/json"


def parse(model: type[Model], body: bytes, max_strings: int = MAX_STRINGS) -> Model:
    """`max_strings`: checked for bodies of more than SMALL_BYTES.

    Raises InvalidRequest, which names the field and the error, never the value.
    """
    if len(body) > SMALL_BYTES:
        _check_structure(body, max_strings)
    try:
        content = model.model_validate_json(body)
    except ValidationError as error:
        # The error's text repeats the user's input.
        raise InvalidRequest(error_message(error), param=_field(error)) from None
    if _has_constant(body):
        raise InvalidRequest(NOT_JSON)
    return content


def _check_structure(body: bytes, max_strings: int) -> None:
    """Limits the number of strings and the bytes outside them: 30 MB of `[],[],…` take 0.8 s and 300 MB to parse."""
    max_structure = max(SMALL_BYTES, max_strings * STRUCTURE_BYTES_PER_STRING)
    structure = 0
    for strings, outside in enumerate(_outside_strings(body)):
        structure += len(outside)
        if strings > max_strings or structure > max_structure:
            raise InvalidRequest("The body has too many fields.")


def _has_constant(body: bytes) -> bool:
    """Whether it has a NaN or an Infinity, which Pydantic accepts and JSON does not have."""
    if b"NaN" not in body and b"Infinity" not in body:
        return False
    return any(b"NaN" in outside or b"Infinity" in outside for outside in _outside_strings(body))


def _outside_strings(body: bytes) -> Iterator[bytes]:
    """The text before, between and after the strings of `body`."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")  # Now every quotation mark delimits a string.
    at = 0
    while (start := body.find(b'"', at)) >= 0 and (end := body.find(b'"', start + 1)) >= 0:
        yield body[at:start]
        at = end + 1
    yield body[at:]


def error_message(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return NOT_JSON
    reason = first["msg"].removeprefix("Value error, ")
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {reason}." if field else f"{reason}."


def _field(error: ValidationError) -> str:
    """The first invalid field at the top level; "" if the error concerns the whole body."""
    location = error.errors(include_input=False, include_url=False, include_context=False)[0]["loc"]
    return str(location[0]) if location else ""


def _read(environ: Mapping[str, Any], max_bytes: int, seconds: float) -> bytes:
    """Reads up to `max_bytes`. After `seconds` the client's socket is shut down for reading, which ends a slow body."""
    stream, pieces, remaining = environ["wsgi.input"], [], max_bytes
    sock = waiting.client_socket(environ)
    timer = waiting.call_later(seconds, lambda: sock.shutdown(socket.SHUT_RD)) if sock is not None else None
    try:
        while remaining > 0 and (piece := stream.read(min(remaining, READ_BYTES))):
            pieces.append(piece)
            remaining -= len(piece)
    except Exception as error:
        raise InvalidRequest("The body is not complete.") from error
    finally:
        if timer is not None:
            timer.cancel()
    return b"".join(pieces)
