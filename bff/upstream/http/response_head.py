"""An answer's head, status line and headers, whole before http.client parses it; what precedes it is skipped.

Any number of informational answers (RFC 9110, section 15.2: 100, 102, 103) may come before the final one. http.client
skips only 100, without a bound, and would wait for the rest of a head where nothing else of the stream can happen.
"""

import http.client
import re
from collections.abc import Iterator
from typing import Final

from bff.errors import UpstreamError

MAX_INFORMATIONAL: Final = 20
"""More than any server sends; each makes us read on."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of one head. Servers and proxies allow 4 to 32 KiB; http.client would take 6 MiB."""

_END: Final = re.compile(rb"\n\r?\n")
_INFORMATIONAL: Final = re.compile(rb"HTTP/[0-9.]+[ \t]+(1[0-9]{2})\s")
_PREFIX: Final = b"HTTP/"


def read_head(pieces: Iterator[bytes]) -> tuple[bytes, bytes]:
    """The final answer's head, and what came with it of the body. `pieces` are bytes as they come, b"" at their end.

    Raises UpstreamError for too many informational answers, too long a head, or a change of protocol (101) that nobody
    asked for; ConnectionError for an answer that is cut.
    """
    data = bytearray()
    for _ in range(MAX_INFORMATIONAL + 1):
        size = _size_of_head(data, pieces)
        head = bytes(data[:size])
        del data[:size]
        informational = _INFORMATIONAL.match(head)
        if informational is None:
            return head, bytes(data)
        if informational[1] == b"101":
            raise UpstreamError(detail="a change of protocol that nobody asked for")
    raise UpstreamError(detail=f"more than {MAX_INFORMATIONAL} informational answers")


def _size_of_head(data: bytearray, pieces: Iterator[bytes]) -> int:
    """Bytes; `data` is extended until it holds a whole head, or what is none at all, which http.client refuses."""
    searched = 0
    while (end := _END.search(data, searched)) is None:
        if not data.startswith(_PREFIX[: len(data)]):
            return len(data)
        if len(data) > MAX_HEAD_BYTES:
            break
        searched = max(0, len(data) - 2)
        piece = next(pieces)
        if not piece:
            raise http.client.RemoteDisconnected("cut before the end of its head")
        data += piece
    if end is None or end.end() > MAX_HEAD_BYTES:
        raise UpstreamError(detail=f"a head of more than {MAX_HEAD_BYTES} bytes")
    return end.end()
