"""Decodes the body of a chat completion, as bytes, to JSON objects.

The body should be server-sent events, https://platform.openai.com/docs/api-reference/chat-streaming: unnamed events, each a
JSON object, and finally the text `[DONE]`. Whatever the Content-Type, it may also be one JSON object, as some servers do not
stream. Does no I/O.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from bff.errors import UpstreamError
from bff.http.sse import Decoder, Event

DONE: Final = "[DONE]"
KEEPALIVES: Final = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})
"""Types of events whose data is not part of a reply. Some servers send them instead of comments."""

_BOM: Final = b"\xef\xbb\xbf"
_ERROR_FIELD: Final = re.compile(rb"^error(?=:)", re.MULTILINE)
_BARE_JSON: Final = re.compile(rb"^(?=[ \t]*[{\[])", re.MULTILINE)


class Frame(NamedTuple):
    content: dict[str, Any]
    """{} for `[DONE]`."""
    is_error: bool = False
    """Whether the event's type is `error`."""
    is_done: bool = False


class FrameDecoder:
    """Decodes a body fed in chunks of any size.

    Raises UpstreamError for data that is neither a JSON object nor `[DONE]`, and for an event over the limit.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._events = _LenientDecoder(max_event_bytes)
        self._is_json: bool | None = None
        """Whether the body is JSON instead of a stream; None while that is unknown."""
        self._pending = bytearray()
        """What was received before that is known; then the JSON object so far."""
        self._has_events = False

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        if self._is_json is None:
            chunk = self._detect(chunk)
        if self._is_json is False:
            yield from self._frames(self._events.feed(chunk))
        elif self._is_json:
            self._pending += chunk
            if chunk.rstrip().endswith(b"}"):
                yield from self._objects()
        if len(self._pending) > self._max_event_bytes:
            raise UpstreamError(detail=f"a response of more than {self._max_event_bytes} bytes")

    def end(self, *, finished: bool) -> Iterator[Frame]:
        """The rest, at a clean end of the body. An event needs no blank line there.

        `finished`: the reply has its finish_reason; then half an event is only a cut end.
        """
        if self._is_json:
            yield from self._objects()
            if self._pending.strip():
                raise UpstreamError(detail="the model's response is not a JSON object")
            return
        try:
            yield from self._frames(self._events.feed(b"\n\n"))
        except UpstreamError:
            if not finished:
                raise
        if self._events.has_text and not self._has_events:
            raise UpstreamError(detail="the model's response is neither an event stream nor JSON")

    def _detect(self, chunk: bytes) -> bytes:
        """Returns what is to be decoded, b"" while the kind of body is unknown."""
        self._pending += chunk
        start = self._pending.removeprefix(_BOM).lstrip()
        if not start or _BOM.startswith(self._pending):
            return b""
        self._is_json = start.startswith((b"{", b"["))
        received = bytes(start if self._is_json else self._pending)
        self._pending.clear()
        return received

    def _objects(self) -> Iterator[Frame]:
        """The complete objects so far: a server may hold the connection open after the last one."""
        text = self._pending.decode("utf-8", "replace").lstrip()
        while (found := _first_object(text)) is not None:
            content, text = found
            yield Frame(content)
        self._pending = bytearray(text.encode())

    def _frames(self, events: list[Event]) -> Iterator[Frame]:
        for event in events:
            self._has_events = True
            if (frame := _frame(event)) is not None:
                yield frame


class _LenientDecoder(Decoder):
    """Reads lines that are no fields of SSE, too: `error: {…}`, as llama.cpp sent it, and bare JSON."""

    has_text = False
    """Whether there was anything but comments and white space."""

    def _parse(self, blocks: bytes) -> list[Event]:
        blocks = _ERROR_FIELD.sub(b"event: error\ndata", blocks)
        events = super()._parse(_BARE_JSON.sub(b"data: ", blocks))
        self.has_text = self.has_text or (not events and _is_text(blocks))
        return events


def _is_text(blocks: bytes) -> bool:
    return any(not line.startswith(b":") for line in blocks.split(b"\n") if line.strip())


def _frame(event: Event) -> Frame | None:
    """None for an event that is not part of a reply. Blank data holds nothing that could be lost."""
    data = event.data.strip()
    if event.event == "error":
        return Frame(_parse_object(data) or {}, is_error=True)
    if not data or event.event in KEEPALIVES:
        return None
    if data == DONE:
        return Frame({}, is_done=True)
    content = _parse_object(data)
    if content is None:
        raise UpstreamError(detail="the model's stream has data that is not a JSON object")
    return Frame(content)


def _parse_object(text: str) -> dict[str, Any] | None:
    """None for anything but one JSON object."""
    content, rest = _first_object(text) or (None, "")
    return None if rest else content


def _first_object(text: str) -> tuple[dict[str, Any], str] | None:
    """The JSON object at the start of `text`, and the text after it. None if there is none, or only a part of it.

    NaN, Infinity and control characters in strings are accepted: servers send them.
    """
    try:
        content, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return (content, text[end:].lstrip()) if isinstance(content, dict) else None


_DECODER: Final = json.JSONDecoder(strict=False)
