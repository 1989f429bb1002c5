"""Encodes and decodes server-sent events.

Decoding follows the WHATWG algorithm, https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
sseclient-py parses the blocks. The decoder adds what it lacks: mixed line ends, cut anywhere; a BOM; invalid UTF-8; the last
event id, which outlives its block; dropping an unfinished last block; and limits on size.
"""

import logging
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

from sseclient import SSEClient

from bff.errors import UpstreamError

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
MAX_JOINED_BYTES: Final = 256 * 1024
MAX_JOINED_LINES: Final = 2_000
"""Joining `data:` lines is quadratic inside sseclient-py: at these limits it takes some 10 ms."""

EVENT_BYTES: Final = 300
"""Memory that an event takes besides its data; with many small events this is the larger part."""

_LARGE_BLOCK_BYTES: Final = 8 * 1024
"""Smaller blocks cannot exceed a limit, so a read that contains only such blocks is parsed at once."""

_BOM: Final = b"\xef\xbb\xbf"
_ID: Final = re.compile(rb"^id(?::[ ]?(.*))?$", re.MULTILINE)
_DATA: Final = re.compile(rb"^data", re.MULTILINE)
_LINE_END: Final = re.compile(r"\r\n|\r|\n")

# At DEBUG sseclient-py logs field names, and a line without a colon counts as one: a user's text could end up in a log.
logging.getLogger("sseclient").setLevel(logging.WARNING)


class Event(NamedTuple):
    event: str
    """The event's type. Decoding gives "message" where the wire has none; encoding omits the field for ""."""
    data: str
    id: str = ""
    """The last event id in force, "" if there is none."""


def size_of(data: str) -> int:
    """Approximate memory of a stored event with this data, in bytes."""
    return EVENT_BYTES + (len(data) if data.isascii() else len(data.encode()))


class _Blocks:
    """The source that sseclient-py reads. One SSEClient serves a whole stream; `data` is replaced before each parse."""

    data = b""

    def __iter__(self) -> Iterator[bytes]:
        yield self.data

    def close(self) -> None: ...


class Decoder:
    """Decodes a stream fed in chunks of any size. Raises UpstreamError for an event over the limits."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = ""
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        self._searched = 0
        self._at_start = True
        self._after_cr = False
        self._blocks = _Blocks()
        self._parser = SSEClient(cast("Iterator[bytes]", self._blocks))  # Each call of `events()` iterates it again.

    def feed(self, chunk: bytes) -> list[Event]:
        chunk = self._with_line_feeds(chunk)
        if self._at_start:
            chunk = self._without_bom(chunk)
        if not self._pending and chunk.endswith(b"\n\n"):
            return self._parse(chunk)  # The usual case: a read that contains complete events only.
        self._pending += chunk
        end = self._pending.rfind(b"\n\n", max(0, self._searched - 1)) + 2
        if end == 1:
            self._searched = len(self._pending)
            self._check_size(self._searched)
            return []
        blocks = bytes(self._pending[:end])
        del self._pending[:end]
        self._searched = len(self._pending)
        return self._parse(blocks)

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if b"\r" not in chunk:
            return chunk
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, chunk: bytes) -> bytes:
        head = bytes(self._pending) + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            return chunk
        self._at_start = False
        if not head.startswith(_BOM):
            return chunk
        self._pending.clear()
        self._searched = 0
        return head[len(_BOM) :]

    def _parse(self, blocks: bytes) -> list[Event]:
        if not blocks.isascii():
            blocks = blocks.decode("utf-8", "replace").encode()
        if b"\0" in blocks or self._has_large_block(blocks):
            return self._parse_one_by_one(blocks)
        ids = blocks.count(b"\nid") + blocks.startswith(b"id")
        last_event_id, events = self.last_event_id, []
        self._blocks.data = blocks
        for event in self._parser.events():
            if event.id is not None:
                ids -= 1
                last_event_id = event.id
            events.append(Event(event.event, event.data, last_event_id))
        if ids:
            return self._parse_one_by_one(blocks)  # An id without data, or two in one block: sseclient-py loses one.
        self.last_event_id = last_event_id
        return events

    def _has_large_block(self, blocks: bytes) -> bool:
        limit = min(_LARGE_BLOCK_BYTES, self._max_event_bytes)
        return len(blocks) > limit and any(len(block) > limit for block in blocks.split(b"\n\n"))

    def _parse_one_by_one(self, blocks: bytes) -> list[Event]:
        events = []
        for block in blocks.split(b"\n\n"):
            self._check_size(len(block), lines=len(_DATA.findall(block)))
            for value in _ID.findall(block):
                if b"\0" not in value:
                    self.last_event_id = value.decode()
            self._blocks.data = block + b"\n\n"
            events += [Event(e.event, e.data, self.last_event_id) for e in self._parser.events()]
        return events

    def _check_size(self, size: int, lines: int = 1) -> None:
        if size > self._max_event_bytes:
            raise UpstreamError(detail=f"an event of more than {self._max_event_bytes} bytes")
        if lines > 1 and (size > MAX_JOINED_BYTES or lines > MAX_JOINED_LINES):
            raise UpstreamError(detail=f"an event of {lines} data lines and {size} bytes")


def encode(event: Event, retry: int | None = None, *, id_first: bool = False) -> bytes:
    """One frame with LF line ends. `retry` is in milliseconds. `id_first`: the id comes before the data, not after it.

    Raises ValueError for a CR, LF or NUL in the event's type or id, which would start another field.
    """
    name, data, event_id = event
    if _breaks_field(name) or _breaks_field(event_id):
        raise ValueError("an event's type and id must not hold CR, LF or NUL")
    if "\n" in data or "\r" in data:
        data = _LINE_END.sub("\ndata: ", data)
    head = f"event: {name}\n" if name else ""
    tail = f"\nid: {event_id}" if event_id and not id_first else ""
    if event_id and id_first:
        head = f"id: {event_id}\n{head}"
    if retry is not None:
        tail += f"\nretry: {retry}"
    return f"{head}data: {data}{tail}\n\n".encode()


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()


def _breaks_field(value: str) -> bool:
    return "\n" in value or "\r" in value or "\0" in value
