"""The events sent to clients, one function per event, each a JSON object on one line.

They have no SSE event type: hand-written clients look for blocks that begin with `data: `, and `EventSource` passes named
events only to listeners registered for the name.
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
    """`position`: the number of this user's messages ahead in the queue, plus 1."""
    return event({"type": "status", "message": message} | ({} if position is None else {"position": position}), event_id)


def error(problem: ChatError, request_id: str, event_id: str = "") -> Event:
    return event({"type": "error"} | problem.as_json(request_id), event_id)


def stopped(text: str, reply_id: str | None = None) -> Event:
    """Ends a reply that the user stopped. `text`: what was sent of it; `reply_id`: the stored reply, if it was stored."""
    stored = {"message_id": reply_id} if reply_id else {}
    return event({"type": "stopped", "response": response([text] if text else []) | stored})


def response(texts: Sequence[str], language: str | None = None, *, truncated: bool = False) -> dict[str, Any]:
    """The `response` of `complete` and `stopped`. `truncated`: the model's own limit cut the reply short."""
    content = {"responses": list(texts), "response_language": language, "voice_audio_base64": None}
    return content | ({"truncated": True} if truncated else {})


def reasoning(text: str) -> dict[str, Any]:
    """What a model says to itself: no part of its reply."""
    return {"type": "reasoning", "text": text}


def keepalive() -> Event:
    """Never has an id: it is in no log, so no stream can be resumed from it."""
    return Event("", '{"type":"keepalive"}')


def event(content: dict[str, Any], event_id: str = "") -> Event:
    return Event("", json.dumps(content, separators=(",", ":")), event_id)


def parse(data: str) -> Any:
    """The JSON in `data`; None if it is invalid, nested too deep, or contains NaN or Infinity, which browsers reject."""
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        return None


def parse_object(data: str) -> dict[str, Any]:
    """The JSON object in `data`, or an empty one."""
    content = parse(data)
    return content if isinstance(content, dict) else {}


def text_in(content: dict[str, Any]) -> str:
    """The text of a `progress` event, "" for any other event."""
    text = content.get("text") if content.get("type") == "progress" else None
    return text if isinstance(text, str) else ""


def has_responses(response: Any) -> bool:
    """Whether it is an object whose `responses` are strings."""
    responses = response.get("responses") if isinstance(response, dict) else None
    return isinstance(responses, list) and all(isinstance(text, str) for text in responses)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_decode: Final = json.JSONDecoder(parse_constant=_refuse).decode
