"""A conversation's reply as `EventSource` hears it: `token`, and last `done`, `failure` or `stopped`.

After `restart` the tokens before it no longer count.

Named `failure`, since an event named `error` would land in `EventSource.onerror`.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bff.http.sse import Event
from bff.upstream import events


def encode(said: Iterable[Event | None], *, restarted: bool) -> Iterator[Event | None]:
    """`restarted`: what the reader has read no longer counts."""
    if restarted:
        yield Event("restart", "{}")
    for event in said:
        if event is None:
            yield None
        elif (named := _named(events.parsed_object(event.data))) is not None:
            name, content = named
            yield Event(name, json.dumps(content), event.id)


def _named(content: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    match content.get("type"):
        case "progress":
            text = events.text_in(content)
            return ("token", {"token": text}) if text else None
        case "complete":
            return "done", {"messageId": _reply_id(content)}
        case "stopped":
            return "stopped", {"messageId": _reply_id(content)}
        case "error":
            return "failure", {name: content.get(name) for name in ("error", "code", "request_id")}
        case "restart":
            return "restart", {}
    return None


def _reply_id(content: dict[str, Any]) -> Any:
    return content["response"].get("message_id")
