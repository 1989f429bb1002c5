"""What we say to the browser: one function an event, each a JSON object on one line.

They carry no SSE event type: hand-written readers look for blocks that begin with `data: `, and `EventSource` hands
named events to listeners nobody registered.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from bff.errors import ChatError
from bff.http.sse import Event

QUEUED: Final = "Message queued..."
PROCESSING: Final = "Processing..."
TERMINAL: Final = frozenset({"complete", "error", "stopped"})


def status(message: str, position: int | None = None, event_id: str = "") -> Event:
    """`position`: messages of this user waiting ahead, plus 1."""
    return event({"type": "status", "message": message} | ({} if position is None else {"position": position}), event_id)


def error(problem: ChatError, request_id: str, event_id: str = "") -> Event:
    return event({"type": "error"} | problem.as_json(request_id), event_id)


def stopped(text: str, reply_id: str | None = None) -> Event:
    """Ends an answer at the user's wish, with what had been said, and as what it was stored, if it was."""
    stored = {"message_id": reply_id} if reply_id else {}
    return event({"type": "stopped", "response": response([text] if text else []) | stored})


def response(texts: Sequence[str], language: str | None = None) -> dict[str, Any]:
    """What `complete` and `stopped` hold."""
    return {"responses": list(texts), "response_language": language, "voice_audio_base64": None}


def keepalive() -> Event:
    """Never carries an id: it is in no log, so nobody can go on from it."""
    return Event("", '{"type":"keepalive"}')


def event(content: dict[str, Any], event_id: str = "") -> Event:
    return Event("", json.dumps(content, separators=(",", ":")), event_id)


def parsed(data: str) -> Any:
    """The JSON in `data`, or None: not JSON, nested too deep, or a number that no browser reads (NaN)."""
    try:
        return _DECODE(data)
    except (ValueError, RecursionError):
        return None


def parsed_object(data: str) -> dict[str, Any]:
    """The JSON object in `data`, or an empty one."""
    content = parsed(data)
    return content if isinstance(content, dict) else {}


def progress_text(data: str) -> str:
    """The piece of the answer that a `progress` event holds, "" for any other event."""
    return text_in(parsed_object(data))


def text_in(content: dict[str, Any]) -> str:
    """As `progress_text`, of an event that is parsed already."""
    text = content.get("text") if content.get("type") == "progress" else None
    return text if isinstance(text, str) else ""


def has_responses(response: Any) -> bool:
    """Whether it is an answer: an object whose `responses` are texts."""
    responses = response.get("responses") if isinstance(response, dict) else None
    return isinstance(responses, list) and all(isinstance(text, str) for text in responses)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_DECODE: Final = json.JSONDecoder(parse_constant=_refuse).decode
