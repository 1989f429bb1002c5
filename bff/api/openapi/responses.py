"""Responses that several routes have in common."""

from typing import Final

from bff.api.openapi import events
from bff.api.openapi.operation import ResponseSpec
from bff.api.openapi.schemas import ResponseEvent, Stopping

_STREAM_HEADERS: Final = {
    "Location": "The URL to follow the reply.",
    "X-Message-ID": "The id of the reply's message in the queue.",
    "X-On-Disconnect": "`continue`: the reply continues if its clients disconnect. `cancel`: it ends.",
}
CHAT_STREAM: Final = ResponseSpec(
    "An event stream. Exactly one event is terminal (complete, error or stopped), and it is the last.",
    headers=_STREAM_HEADERS,
    events={"message": events.CHAT},
)
CONVERSATION_STREAM: Final = ResponseSpec(
    "An event stream. Readers that connect while the reply is running follow the same reply.",
    headers=_STREAM_HEADERS,
    events=events.CONVERSATION,
)
STOPPING: Final = ResponseSpec("The reply ends as soon as possible.", Stopping)
NOT_MODIFIED: Final = ResponseSpec("The copy of which If-None-Match has the ETag is still valid.")
RESPONSE_EVENTS: Final = dict.fromkeys(
    (
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    ),
    (ResponseEvent,),
)
"""The last one is one of the last four."""
