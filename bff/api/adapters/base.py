"""Shared parts of the adapters, which translate our events (bff/upstream/events.py) to the protocol of a client.

An adapter parses a request's body and encodes the events of one reply. It does no I/O. Events that its protocol cannot
express are left out; `docs/clients.md` lists them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from bff.errors import InvalidRequest
from bff.http.event_ids import resumable
from bff.http.sse import Event
from bff.upstream import events
from bff.upstream.messages import PRINTABLE

HISTORY_STRINGS: Final = 20_000
"""Maximum strings in the body of a client that sends the whole history: about 1,000 turns."""
MAX_CHAT_ID_CHARACTERS: Final = 128
TEXT_ONLY: Final = "messages: the last one must contain text only; files and images are not supported."
_APP_PARTS: Final = frozenset({"step-start", "reasoning", "source-url", "source-document"})
"""Types of message parts that are meant for the app, besides `data-…`: no model reads them."""
DONE: Final = "[DONE]"
"""The last `data` of some protocols; it is not JSON."""


class ParsedRequest(NamedTuple):
    body: bytes
    """A body for `POST /api/chat/stream`, not validated yet."""
    context: Mapping[str, Any] = {}
    """Values of the request that the encoder needs or sends back, such as thread and run ids."""
    chat_id: str = ""
    """The client's id of the chat that the message belongs to, as `chat_id_key` returns it; the reply can be found by it."""


class Sent(IntEnum):
    """The most significant output sent to a reader, on this connection or before it resumed."""

    NOTHING = 0
    """No output; status events do not count."""
    TOOLS = 1
    """Output has begun: a restart of the reply is an error, since these protocols cannot retract output."""
    TEXT = 2
    """Text was streamed, so the text of `complete` is not sent again."""
    END = 3

    @classmethod
    def of(cls, *, text: bool, tools: bool = False) -> "Sent":
        return cls.TEXT if text else cls.TOOLS if tools else cls.NOTHING


_SUFFIXES: Final = {Sent.NOTHING: "", Sent.TOOLS: ";tool", Sent.TEXT: ";text", Sent.END: ";end"}
"""Suffixes of event ids: with its Last-Event-ID a resuming reader reports what it was sent."""


class TracksOutput(Protocol):
    @property
    def sent(self) -> Sent: ...


class EventEncoder(TracksOutput, Protocol):
    """Encodes one reply for one reader. It may start at any event of the reply."""

    preamble: list[str]
    """`data` of the events to send before any other."""

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        """Returns the `data` of each event to send for our event of type `kind`; none if the protocol cannot express it."""


class ClientProtocol(NamedTuple):
    parse_request: Callable[[bytes], ParsedRequest]
    """Raises InvalidRequest."""
    encoder: Callable[[str, Mapping[str, Any], Sent], EventEncoder] | None = None
    """Takes the message id, `ParsedRequest.context` and what was sent before. None: our events are sent unchanged."""
    headers: Mapping[str, str] = {}
    """Additional response headers."""
    run_header: str = ""
    """The name of a response header in which clients expect the message id."""
    ids: bool = True
    """Whether events carry ids; not all clients can read them."""


class ResumePoint(NamedTuple):
    """The position in a reply from which a reader continues."""

    after: str
    """The broker's event id; "" for the start."""
    sent: Sent

    @classmethod
    def of(cls, last_event_id: str) -> "ResumePoint":
        sent = next((sent for sent in reversed(Sent) if last_event_id.endswith(_SUFFIXES[sent])), Sent.NOTHING)
        return cls(last_event_id.removesuffix(_SUFFIXES[sent]), sent)

    def as_id(self) -> str:
        """The event id that `of` reads back; "" if there is none: it is too long, or `after` itself ends in a suffix."""
        event_id = self.after + _SUFFIXES[self.sent]
        return event_id if self.after and resumable(event_id) and ResumePoint.of(event_id) == self else ""


def translate(source: Iterable[Event | None], encoder: EventEncoder) -> Iterator[Event | None]:
    """Encodes each event, and passes each None ("nothing yet") on.

    One of our events may become several. Only the last of them carries its id, so a reader that was disconnected in between
    gets all of them again.
    """
    preamble = encoder.preamble
    for event in source:
        if event is None:
            yield None
            continue
        kind, encoded = encode(event, encoder)
        if encoded:
            *first, last = [*preamble, *encoded]
            preamble = []
            for data in first:
                yield Event("", data)
            sent = Sent.END if kind in events.TERMINAL else encoder.sent
            yield Event("", last, ResumePoint(event.id, sent).as_id())


def encode(event: Event, encoder: EventEncoder) -> tuple[str, list[str]]:
    """The type of one of our events, and the `data` of the events to send for it."""
    content = events.parse_object(event.data)
    kind = content.pop("type", "")
    return kind, encoder.encode(kind, content)


def as_json(**content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def json_safe(value: Any) -> Any:
    """Returns `value`, or None if JSON cannot represent it: 1e999 is parsed as infinity, or it is nested too deep."""
    try:
        json.dumps([[value]], allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value


def chat_request(
    text: str, client_message_id: str | None, on_busy: Any = None, *, chat_id: str = "", **context: Any
) -> ParsedRequest:
    """A `client_message_id` that we do not accept is left out: it only makes retries idempotent."""
    body = {"message": text}
    if client_message_id and PRINTABLE.fullmatch(client_message_id):
        body["client_message_id"] = client_message_id
    if on_busy is not None:
        body["on_busy"] = on_busy
    return ParsedRequest(json.dumps(body).encode(), context, chat_id_key(chat_id))


def chat_id_key(chat_id: str) -> str:
    """The client's id of a chat as it is kept with its messages: of limited length. "" for none."""
    return chat_id if len(chat_id) <= MAX_CHAT_ID_CHARACTERS else sha256(chat_id.encode("utf-8", "surrogatepass")).hexdigest()


class HasRole(Protocol):
    role: str


Message = TypeVar("Message", bound=HasRole)


def last_user_message(messages: list[Message]) -> Message:
    """Raises InvalidRequest if the last message is not the user's."""
    if not messages or messages[-1].role != "user":
        raise InvalidRequest("messages: the last one must be the user's.", param="messages")
    return messages[-1]


def text_only(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts. Parts that are meant for the app are ignored.

    Raises InvalidRequest if any other part is not text.
    """
    parts = [part for part in content if not _is_for_app(part)] if isinstance(content, list) else content
    texts = _texts(parts)
    if None in texts:
        raise InvalidRequest(TEXT_ONLY, param="messages")
    if not texts:
        raise InvalidRequest("messages: the last one must contain text.", param="messages")
    return joined_text(parts)


def joined_text(content: Any) -> str:
    """The text of a message's content without images and other parts."""
    return "\n".join(text for text in _texts(content) if text is not None)


def _texts(content: Any) -> list[str | None]:
    """The text of each part; None for a part that is not text."""
    if isinstance(content, str):
        return [content]
    return [_text_of_part(part) for part in content] if isinstance(content, list) else []


def _text_of_part(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None


def _is_for_app(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and (kind in _APP_PARTS or kind.startswith("data-"))


def responses(content: dict[str, Any]) -> list[str]:
    """The non-empty texts of a `complete` or `stopped` event, which the relay has validated."""
    return [text for text in content["response"]["responses"] if text]


def is_truncated(content: dict[str, Any]) -> bool:
    """Whether the model's own limit cut the reply of a `complete` event short."""
    return content["response"].get("truncated") is True


def extra_fields(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `complete` event's response besides its texts: language, voice, attachments."""
    return {
        name: safe
        for name, value in content["response"].items()
        if name != "responses" and (safe := json_safe(value)) is not None
    }
