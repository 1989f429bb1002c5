"""Reads a response's head (status line and headers) completely before http.client parses it; skips informational responses.

Any number of informational responses (RFC 9110, section 15.2: 100, 102, 103) may precede the final one. http.client skips
only 100, without a limit, and would block for the rest of a head.
"""

import http.client
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from bff.errors import UpstreamError

MAX_INFORMATIONAL: Final = 20
"""More than any server sends."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""For one head. Servers and proxies allow 4 to 32 KiB; http.client would accept 6 MiB."""

_END: Final = re.compile(rb"\n\r?\n")
_INFORMATIONAL: Final = re.compile(rb"HTTP/[0-9.]+[ \t]+(1[0-9]{2})\s")
_PREFIX: Final = b"HTTP/"
_WELL_FORMED: Final = re.compile(
    rb"HTTP/1\.1 ([1-9][0-9]{2})(?: ([\t -~]*))?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n){0,99})\r\n"
)
"""What servers send. Everything else is left to http.client."""


class Head(NamedTuple):
    status: int
    reason: str
    headers: http.client.HTTPMessage
    first: dict[str, str]
    """The first value of each header, by its name in lower case."""


def read_head(pieces: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Returns the final response's head, and the part of the body that arrived with it.

    `pieces` yields bytes as they arrive, b"" at the end. Raises UpstreamError for too many informational responses, too long
    a head, or an unrequested change of protocol (101); ConnectionError if the connection ends before the head.
    """
    data = bytearray()
    for _ in range(MAX_INFORMATIONAL + 1):
        size = _head_size(data, pieces)
        head = bytes(data[:size])
        del data[:size]
        informational = _INFORMATIONAL.match(head)
        if informational is None:
            return head, bytes(data)
        if informational[1] == b"101":
            raise UpstreamError(detail="an unrequested change of protocol")
    raise UpstreamError(detail=f"more than {MAX_INFORMATIONAL} informational responses")


def parse_head(head: bytes) -> Head | None:
    """As http.client does, whose parser, one for e-mails, takes a twentieth of the CPU time of a stream's start.

    None if the head is not well formed.
    """
    match = _WELL_FORMED.fullmatch(head)
    if match is None:
        return None
    headers = http.client.HTTPMessage()
    first: dict[str, str] = {}
    for line in match[3].decode().split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.lstrip(" \t")
        headers.set_raw(name, value)
        first.setdefault(name.lower(), value)
    return Head(int(match[1]), (match[2] or b"").decode().strip(), headers, first)


def _head_size(data: bytearray, pieces: Iterator[bytes]) -> int:
    """The head's length in bytes. Extends `data` until it has a complete head, or no HTTP at all, which http.client rejects."""
    searched = 0
    while (end := _END.search(data, searched)) is None:
        if not data.startswith(_PREFIX[: len(data)]):
            return len(data)
        if len(data) > MAX_HEAD_BYTES:
            break
        searched = max(0, len(data) - 2)
        piece = next(pieces)
        if not piece:
            raise http.client.RemoteDisconnected("the connection closed before the end of the head")
        data += piece
    if end is None or end.end() > MAX_HEAD_BYTES:
        raise UpstreamError(detail=f"a head of more than {MAX_HEAD_BYTES} bytes")
    return end.end()
