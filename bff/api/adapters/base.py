"""The base of the adapters: our events (bff/upstream/events.py) become those of a protocol that a client already speaks.

An adapter parses a request's body and encodes the events of one reply; it does no I/O. What its protocol has no event for it
leaves out: see `docs/clients.md`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from bff.errors import InvalidRequest
from bff.http.event_ids import resumable
from bff.http.sse import Event
from bff.upstream import events
from bff.upstream.messages import PRINTABLE

HISTORY_STRINGS: Final = 20_000
"""In the body of a client that sends the whole history along: some 1,000 turns."""
DONE: Final = "[DONE]"
"""What some protocols say last, and which is no JSON."""


class ParsedRequest(NamedTuple):
    """What a request's body asks for."""

    body: bytes
    """As `POST /api/chat/stream` takes it; checked there."""
    about: Mapping[str, Any] = {}
    """What the client wants to read again in the answer."""


class Sent(IntEnum):
    """What of an answer a reader has been sent, on this connection or before it resumed. Each includes those before it."""

    NOTHING = 0
    """Nothing that lasts: statuses, for example."""
    TOOLS = 1
    """After output a restart is an error, as no protocol but our own can take it back."""
    TEXT = 2
    """Text that came in pieces is not sent once more with the whole answer."""
    END = 3

    @classmethod
    def of(cls, *, text: bool, tools: bool = False) -> "Sent":
        return cls.TEXT if text else cls.TOOLS if tools else cls.NOTHING


_SUFFIXES: Final = {Sent.NOTHING: "", Sent.TOOLS: ";tool", Sent.TEXT: ";text", Sent.END: ";end"}
"""Of event ids, so that whoever resumes says what it was sent."""


class EventEncoder(Protocol):
    """How one answer is said, to one reader. Valid from its first event on, wherever in the answer that is."""

    preamble: list[str]
    """The data of what is said before anything else."""

    @property
    def sent(self) -> Sent: ...

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        """The data of each event that says ours, of type `kind`; none where the protocol has no word for it."""


class ClientProtocol(NamedTuple):
    parsed: Callable[[bytes], ParsedRequest]
    """Raises InvalidRequest for a body that it can say nothing of."""
    encoder: Callable[[str, Mapping[str, Any], Sent], EventEncoder] | None = None
    """From a message id, `ParsedRequest.about` and what has been sent. None: our own words are said as they are."""
    headers: Mapping[str, str] = {}
    ids: bool = True
    """Whether its clients bear events that have ids."""


class ResumePoint(NamedTuple):
    """Where in an answer a reader goes on."""

    after: str
    """The broker's event id, "" for the start."""
    sent: Sent

    @classmethod
    def of(cls, last_event_id: str) -> "ResumePoint":
        sent = next((sent for sent in reversed(Sent) if last_event_id.endswith(_SUFFIXES[sent])), Sent.NOTHING)
        return cls(last_event_id.removesuffix(_SUFFIXES[sent]), sent)

    def as_id(self) -> str:
        """An id that `of` reads as this place again; "" where there is none: too long, or `after` itself ends in a suffix."""
        event_id = self.after + _SUFFIXES[self.sent]
        return event_id if self.after and resumable(event_id) and ResumePoint.of(event_id) == self else ""


def translate(said: Iterable[Event | None], encoder: EventEncoder) -> Iterator[Event | None]:
    """The last event that says one of ours carries its id: who has read only a part of them reads them again."""
    preamble = encoder.preamble
    for event in said:
        if event is None:
            yield None
            continue
        content = events.parsed_object(event.data)
        kind = content.pop("type", "")
        if ours := encoder.encode(kind, content):
            *first, last = [*preamble, *ours]
            preamble = []
            for data in first:
                yield Event("", data)
            sent = Sent.END if kind in events.TERMINAL else encoder.sent
            yield Event("", last, ResumePoint(event.id, sent).as_id())


def as_json(**content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def json_safe(value: Any) -> Any:
    """What an engine sent, or None where JSON cannot say it again: 1e999 is a number when read; or it is nested too deep."""
    try:
        json.dumps([[value]], allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value


def asking(text: str, client_message_id: str | None, on_busy: Any = None, **about: Any) -> ParsedRequest:
    """A client's own message id that we cannot take is left out: it only makes asking again safe."""
    body = {"message": text}
    if client_message_id and PRINTABLE.fullmatch(client_message_id):
        body["client_message_id"] = client_message_id
    if on_busy is not None:
        body["on_busy"] = on_busy
    return ParsedRequest(json.dumps(body).encode(), about)


class HasRole(Protocol):
    role: str


Message = TypeVar("Message", bound=HasRole)


def last_of(messages: list[Message]) -> Message:
    """What is said now. Raises InvalidRequest."""
    if messages[-1].role != "user":
        raise InvalidRequest("messages: the last one must be the user's.")
    return messages[-1]


def text_of(content: Any) -> str:
    """Of what is said now: a text, or parts of which each is one. Raises InvalidRequest."""
    texts = _texts(content)
    if not texts or None in texts:
        raise InvalidRequest("messages: the last one must hold text, and nothing else.")
    return joined(content)


def joined(content: Any) -> str:
    """The texts in what was said; images and the like are left out."""
    return "\n".join(text for text in _texts(content) if text is not None)


def _texts(content: Any) -> list[str | None]:
    """Of each part; None of one that is no text."""
    if isinstance(content, str):
        return [content]
    return [_text_of_part(part) for part in content] if isinstance(content, list) else []


def _text_of_part(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None


def responses(content: dict[str, Any]) -> list[str]:
    """The texts of a `complete` or `stopped`, which the relay has checked."""
    return [text for text in content["response"]["responses"] if text]


def extra_fields(content: dict[str, Any]) -> dict[str, Any]:
    """What a `complete` holds beside its texts: language, voice, attachments."""
    return {
        name: said
        for name, value in content["response"].items()
        if name != "responses" and (said := json_safe(value)) is not None
    }
