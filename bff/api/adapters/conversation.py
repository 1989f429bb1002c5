"""A conversation's reply as named SSE events for `EventSource`: `token`, and at the end `done`, `failure` or `stopped`.

A `restart` event invalidates the tokens before it. The error event is named `failure` since one named `error` would trigger
`EventSource.onerror`.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bff.api.adapters.base import is_truncated
from bff.http.sse import Event
from bff.upstream import events


def encode(source: Iterable[Event | None], *, restarted: bool) -> Iterator[Event | None]:
    """`restarted`: starts with a `restart` event, because the reader has read tokens of an earlier run."""
    if restarted:
        yield Event("restart", "{}")
    for event in source:
        if event is None:
            yield None
        elif (named := _named_event(events.parse_object(event.data))) is not None:
            name, content = named
            yield Event(name, json.dumps(content), event.id)


def _named_event(content: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The event's name and data; None for an event that is not sent."""
    match content.get("type"):
        case "progress":
            text = events.text_in(content)
            return ("token", {"token": text}) if text else None
        case "complete":
            return "done", {"messageId": _reply_id(content)} | ({"truncated": True} if is_truncated(content) else {})
        case "stopped":
            return "stopped", {"messageId": _reply_id(content)}
        case "error":
            return "failure", {name: content.get(name) for name in ("error", "code", "request_id")}
        case "restart":
            return "restart", {}
    return None


def _reply_id(content: dict[str, Any]) -> Any:
    return content["response"].get("message_id")
