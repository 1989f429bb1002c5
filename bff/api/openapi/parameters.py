"""Parameters that several routes have in common."""

from collections.abc import Iterable
from typing import Any, Final

from bff.api.openapi.operation import Parameter


def text(max_length: int | None = None) -> dict[str, Any]:
    return {"type": "string"} | ({} if max_length is None else {"maxLength": max_length})


def protocol_parameter(names: Iterable[str]) -> Parameter:
    return Parameter("protocol", {"enum": [*names]}, "The protocol of the event stream; the events described here are native.")


IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    text(128),
    "Requests with the same key get the same reply; takes precedence over the body's client_message_id.",
    location="header",
)
CHAT_RESUME: Final = Parameter(
    "X-Chat-Resume", {"enum": ["1"]}, "The client reconnects by itself when the stream ends for a drain.", location="header"
)
IDS: Final = Parameter("ids", text(), "0: events without `id:` lines.")
EVENT_SOURCE: Final = (
    Parameter("Last-Event-ID", text(256), "Resume after this event; UTF-8, at most 256 bytes.", location="header"),
    Parameter("last_event_id", text(256), "As Last-Event-ID, for the first request of an EventSource."),
    Parameter("ticket", text(), "From POST /api/ticket."),
)
"""For streams that `EventSource` may open, which cannot set headers."""
START_INDEX: Final = Parameter(
    "startIndex",
    {"type": "integer"},
    "For WorkflowChatTransport: the number of the first event to send; a negative one counts from the end.",
)
RUN_ID: Final = Parameter(
    "X-Run-Id",
    text(128),
    "TanStack AI's id of its run, with which the client resumes: the same request with a Last-Event-ID follows the run.",
    location="header",
)
TANSTACK: Final = (
    Parameter("runId", text(128), "The id of the run, or of its message."),
    Parameter("offset", {"type": "integer"}, "The number of the last event that was read; -1 for none."),
    Parameter("Last-Event-ID", {"type": "integer"}, "As offset; takes precedence.", location="header"),
    Parameter("threadId", text(), "The thread of which to return the active run."),
)
CURSOR_PAGE: Final = (
    Parameter(
        "limit", {"type": "integer", "minimum": 0, "maximum": 10**9 - 1}, "Default 50; clamped to the range from 1 to 100."
    ),
    Parameter("cursor", text(), "nextCursor of the previous page."),
)
BRANCHES: Final = Parameter(
    "branches", {"enum": ["current", "all"]}, "all: the messages of all branches, in the order in which they were stored."
)
