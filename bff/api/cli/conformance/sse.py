"""Server-sent events as they are on the wire: frames with their bytes and arrival times, and the events in them.

Reads like a browser (https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6), so that a reply can
be followed even where its framing breaks a rule; `framing_problems` names what breaks one.
"""

import json
import re
from collections.abc import Iterator
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from bff.api.cli.conformance.client import Response

TERMINAL: Final = frozenset({"complete", "stopped", "error"})
HEARTBEAT: Final = "keepalive"
BOM: Final = b"\xef\xbb\xbf"
_FRAME_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_RETRY_LINE: Final = re.compile(rb"^retry:[^\r\n]*(?:\r\n|\n|\r)", re.MULTILINE)
_FIELD: Final = re.compile(r"(data|id|retry): ")


class Frame(NamedTuple):
    raw: bytes
    """With the empty line that ends it."""
    at: float
    """When its last byte was received, monotonic."""

    @property
    def lines(self) -> list[str]:
        return [line for line in _LINE_END.split(self.raw.decode("utf-8", "replace")) if line]

    @property
    def is_comment(self) -> bool:
        return all(line.startswith(":") for line in self.lines)

    def values(self, name: str) -> list[str]:
        """The values of a field."""
        pairs = (line.partition(":") for line in self.lines)
        return [value.removeprefix(" ") for field, _, value in pairs if field == name]

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object in its data; empty if there is none."""
        try:
            content = json.loads("\n".join(self.values("data")))
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def without_retry(self) -> bytes:
        """What all readers of a reply receive: `retry` is for the reader of one connection."""
        return _RETRY_LINE.sub(b"", self.raw)


class Event(NamedTuple):
    type: str
    id: str
    """"" if the frame has none."""
    content: dict[str, Any]
    frame: Frame

    @property
    def key(self) -> tuple[str, str]:
        """The same for all readers: a request's id, in errors, is each reader's own."""
        shared = {name: value for name, value in self.content.items() if name != "request_id"}
        return self.id, json.dumps(shared, sort_keys=True)


def event_of(frame: Frame) -> Event | None:
    """None for a frame without data, such as a comment."""
    if not frame.values("data"):
        return None
    content = frame.content
    return Event(str(content.get("type", "")), (frame.values("id") or [""])[-1], content, frame)


def since_restart(events: list[Event]) -> list[Event]:
    """The events after the last `restart`; all, if there is none."""
    restarts = [index for index, event in enumerate(events) if event.type == "restart"]
    return events[restarts[-1] + 1 :] if restarts else events


class EventStream:
    """The frames of a response. `with` closes the connection."""

    def __init__(self, response: Response, started_at: float) -> None:
        """`started_at`: when the request was sent, monotonic."""
        self.response = response
        self.started_at = started_at
        self.frames: list[Frame] = []
        self.raw = b""
        self.rest = b""
        """The bytes after the last complete frame."""

    @property
    def message_id(self) -> str:
        return self.response.header("x-message-id")

    @property
    def events(self) -> list[Event]:
        """All events so far."""
        return [event for frame in self.frames if (event := event_of(frame)) is not None]

    @property
    def logged(self) -> list[Event]:
        """The events of the reply: all but heartbeats."""
        return [event for event in self.events if event.type != HEARTBEAT]

    @property
    def text(self) -> str:
        """The pieces of the reply since its last restart."""
        since = since_restart(self.logged)
        return "".join(str(event.content.get("text", "")) for event in since if event.type == "progress")

    @property
    def last(self) -> Event | None:
        return self.logged[-1] if self.logged else None

    @property
    def is_finished(self) -> bool:
        """Whether a terminal event was received."""
        return any(event.type in TERMINAL for event in self.events)

    def read_some(self, deadline: float) -> bool:
        """Waits for bytes. False once the stream has ended. Raises ClientError."""
        data = self.response.read(deadline)
        self.raw += data
        self.rest += data
        now = monotonic()
        while match := _FRAME_END.search(self.rest):
            self.frames.append(Frame(self.rest[: match.end()], now))
            self.rest = self.rest[match.end() :]
        return bool(data)

    def read_events(self, count: int, deadline: float) -> list[Event]:
        """Reads until `count` events (without heartbeats) were received, or the stream has ended. Raises ClientError."""
        while len(self.logged) < count and self.read_some(deadline):
            pass
        return self.logged[:count]

    def read_until(self, event_type: str, deadline: float) -> Event | None:
        """Reads until there is an event of this type; None if the stream ended without one. Raises ClientError."""
        while not (found := [event for event in self.events if event.type == event_type]):
            if not self.read_some(deadline):
                return None
        return found[0]

    def read_all(self, deadline: float) -> Self:
        """Reads to the end. Raises ClientError."""
        while self.read_some(deadline):
            pass
        return self

    def close(self) -> None:
        self.response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def byte_problems(raw: bytes) -> Iterator[str]:
    """What breaks the rules for a stream's bytes."""
    if raw.startswith(BOM):
        yield "the stream begins with a byte order mark"
    if b"\r" in raw:
        yield "lines end in CR or CRLF instead of LF"
    if b"\0" in raw:
        yield "the stream has NUL bytes"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        yield f"the stream is not UTF-8 at byte {error.start}"


def framing_problems(frame: Frame) -> Iterator[str]:
    """What breaks the rules for one frame: a comment, or `data`, then `id` and `retry`, each once."""
    lines = [line for line in frame.lines if not line.startswith(":")]
    names = [line.partition(":")[0] for line in lines]
    if not lines or names == ["retry"]:
        return
    shown = repr(frame.raw[:80])
    if unknown := [name for name in names if name not in {"data", "id", "retry"}]:
        yield f"a field {unknown[0][:20]!r} is in {shown}"
    elif names[0] != "data":
        yield f"data does not come first in {shown}"
    elif len(set(names)) < len(names):
        yield f"a field is repeated in {shown}"
    elif not all(_FIELD.match(line) for line in lines):
        yield f"a field's colon is not followed by one space in {shown}"
