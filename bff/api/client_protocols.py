"""Which protocol the client of a request speaks, and how its client library resumes a reply.

Two libraries count the events of a reply, and resume after the number that they have read (adapters/numbered.py):

- `WorkflowChatTransport` of `@ai-sdk/workflow`: GET `…/<message id or chat id>/stream?startIndex=<number>`; a negative number
  counts from the end. Its POST is that of the AI SDK, but without a `Content-Type`.
- TanStack AI (`fetchServerSentEvents` of `@tanstack/ai-client`): the same POST again, with its run's id in `X-Run-Id` and the
  number in `Last-Event-ID`; GET `?runId=<id>&offset=<number>`, where -1 is the start.
"""

import re
from typing import Any, Final

from flask import request
from pydantic import BaseModel, Field

from bff.api.adapters.ag_ui import AG_UI
from bff.api.adapters.ai_sdk import AI_SDK
from bff.api.adapters.base import HISTORY_STRINGS, ClientProtocol
from bff.api.adapters.native import NATIVE
from bff.errors import InvalidRequest
from bff.http import request_body
from bff.upstream.messages import PRINTABLE

PROTOCOLS: Final = {"native": NATIVE, "ai-sdk": AI_SDK, "ag-ui": AG_UI}
_ACCEPT_PROTOCOL: Final = re.compile(r"text/event-stream\s*;\s*protocol=\"?([\w-]+)")
_INTEGER: Final = re.compile("-?[0-9]{1,9}")


class _Body(BaseModel):
    """The fields that tell the protocols' bodies apart."""

    message: Any = None
    messages: Any = None
    thread_id: Any = Field(default=None, alias="threadId")
    run_id: Any = Field(default=None, alias="runId")


def named() -> ClientProtocol | None:
    """By the query, else by Accept; None if neither names one. Raises InvalidRequest."""
    name = request.args.get("protocol")
    if name is None:
        match = _ACCEPT_PROTOCOL.search(request.headers.get("Accept", ""))
        name = match[1] if match else None
    if name is None:
        return None
    if name not in PROTOCOLS:
        raise InvalidRequest(f"protocol: must be one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def of_body(body: bytes) -> ClientProtocol:
    """The protocol of a body whose request names none: of those with `messages`, only AG-UI's has a thread or a run."""
    if b'"messages"' not in body:
        return NATIVE
    fields = request_body.parse(_Body, body, HISTORY_STRINGS)
    if fields.message is not None or not isinstance(fields.messages, list):
        return NATIVE
    return AI_SDK if fields.thread_id is None and fields.run_id is None else AG_UI


def run_id(protocol: ClientProtocol) -> str | None:
    """The run that a TanStack AI client's POST is about; None for any other client."""
    run_id = request.headers.get("X-Run-Id", "")
    return run_id if protocol is AG_UI and PRINTABLE.fullmatch(run_id) else None


def next_event() -> int:
    """The number of the first event that a TanStack AI client has not read. Raises InvalidRequest."""
    offset = request.headers.get("Last-Event-ID") or request.args.get("offset") or "-1"
    return max(0, _integer("Last-Event-ID", offset) + 1)


def start_index() -> int | None:
    """The number that a `WorkflowChatTransport` resumes from; None for any other client. Raises InvalidRequest."""
    index = request.args.get("startIndex")
    return _integer("startIndex", index) if index is not None and (named() or AI_SDK) is AI_SDK else None


def _integer(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise InvalidRequest(f"{name}: must be a whole number.")
    return int(text)
