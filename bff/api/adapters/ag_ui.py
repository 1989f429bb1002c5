"""AG-UI, the agent-user interaction protocol, version 1.0: https://docs.ag-ui.com/concepts/events.

Events that AG-UI does not define become `CUSTOM` events with our name for them.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, Field

from bff.api.adapters.base import (
    HISTORY_STRINGS,
    ClientProtocol,
    ParsedRequest,
    Sent,
    as_json,
    chat_request,
    extra_fields,
    is_truncated,
    json_safe,
    last_user_message,
    text_only,
)
from bff.api.adapters.texts import BlockFrames, Texts
from bff.api.adapters.tools import Call, Result, Tools
from bff.http import request_body

APP_ROLES: Final = frozenset({"activity", "reasoning"})
"""Roles of messages that are meant for the app."""
TOKENS: Final = {"inputTokens": "prompt_tokens", "outputTokens": "completion_tokens", "totalTokens": "total_tokens"}
"""AG-UI's names, and those of the models' servers."""


class AgUiMessage(BaseModel):
    role: str
    content: Any = None


class RunAgentInput(BaseModel):
    """Only the last message is used: the engine stores the history itself and runs its own tools."""

    thread_id: str = Field(default="", alias="threadId")
    run_id: str = Field(default="", alias="runId")
    messages: list[AgUiMessage] = Field(min_length=1)
    forwarded: Any = Field(default=None, alias="forwardedProps")


def parse_request(body: bytes) -> ParsedRequest:
    request = request_body.parse(RunAgentInput, body, HISTORY_STRINGS)
    message = last_user_message([message for message in request.messages if message.role not in APP_ROLES])
    forwarded = request.forwarded if isinstance(request.forwarded, dict) else {}
    # The run id is the idempotency key: a message repeated in a new run gets a new reply, the same run gets the same reply.
    ids = {"threadId": request.thread_id, "runId": request.run_id}
    return chat_request(text_only(message.content), request.run_id, forwarded.get("on_busy"), chat_id=request.thread_id, **ids)


class AgUiEncoder:
    """`context`: threadId and runId; the message id replaces one that is missing."""

    def __init__(self, message_id: str, context: Mapping[str, Any], sent: Sent) -> None:
        self._run = {name: context.get(name) or message_id for name in ("threadId", "runId")}
        self._texts = Texts(_texts(message_id), _reasoning(message_id), text_sent=sent >= Sent.TEXT)
        self._tools = Tools(message_id, sent >= Sent.TOOLS)
        self.preamble = [as_json(type="RUN_STARTED", **self._run), _custom("message_id", message_id)]

    @property
    def sent(self) -> Sent:
        return Sent.of(text=self._texts.text_sent, tools=self._tools.sent)

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress" | "reasoning":
                return self._texts.add(kind, content)
            case "tool_use":
                return [*self._texts.end(), *_call(self._tools.call(content))]
            case "tool_result":
                return [*self._texts.end(), *_result(self._tools.result(content))]
            case "complete":
                return [*self._texts.finish(content), _custom("response", extra_fields(content)), self._completed(content)]
            case "stopped":
                return [*self._texts.finish(content), self._finished(outcome={"type": "cancelled"})]
            case "error":
                return [*self._texts.end(), *_error(content)]
            case "restart":
                return self._texts.end()
            case "keepalive":
                return []
        return [_custom(kind, json_safe(content))]

    def _completed(self, content: dict[str, Any]) -> str:
        """No outcome of the protocol says that a reply was truncated; `metadata` is open for it."""
        truncated = {"metadata": {"finishReason": "length"}} if is_truncated(content) else {}
        return self._finished(**truncated, **_usage(content))

    def _finished(self, **fields: Any) -> str:
        return as_json(type="RUN_FINISHED", **self._run, **fields)


def _call(call: Call) -> list[str]:
    arguments = {} if call.input is None else call.input
    return [
        as_json(type="TOOL_CALL_START", toolCallId=call.id, toolCallName=call.name),
        as_json(type="TOOL_CALL_ARGS", toolCallId=call.id, delta=json.dumps(arguments)),
        as_json(type="TOOL_CALL_END", toolCallId=call.id),
    ]


def _result(result: Result) -> list[str]:
    call, new, output = result
    text = output if isinstance(output, str) else json.dumps(output)
    event = as_json(type="TOOL_CALL_RESULT", messageId=f"{call.id}-result", toolCallId=call.id, content=text, role="tool")
    return [*_call(call), event] if new else [event]


def _error(content: dict[str, Any]) -> list[str]:
    run_error = as_json(type="RUN_ERROR", message=content.get("error"), code=content.get("code"))
    return [_custom("request_id", content.get("request_id")), run_error]


def _usage(content: dict[str, Any]) -> dict[str, Any]:
    """The tokens of a `complete` event in AG-UI's terms, where the model reported them."""
    usage = content["response"].get("usage")
    reported = usage.get if isinstance(usage, dict) else {}.get
    counts = {name: count for name, key in TOKENS.items() if type(count := reported(key)) is int and count >= 0}
    return {"usage": [counts]} if counts else {}


def _custom(name: str, value: Any) -> str:
    return as_json(type="CUSTOM", name=name, value=value)


def _texts(message_id: str) -> BlockFrames:
    """Each text block after the first is a message with its own id."""

    def text_id(number: int) -> str:
        return message_id if number == 1 else f"{message_id}-{number}"

    return BlockFrames(
        lambda number: [as_json(type="TEXT_MESSAGE_START", messageId=text_id(number), role="assistant")],
        lambda number, text: [as_json(type="TEXT_MESSAGE_CONTENT", messageId=text_id(number), delta=text)],
        lambda number: [as_json(type="TEXT_MESSAGE_END", messageId=text_id(number))],
    )


def _reasoning(message_id: str) -> BlockFrames:
    """Each reasoning block is a span with one message. Their ids may be the same."""

    def events(number: int, *kinds: str, **fields: str) -> list[str]:
        return [as_json(type=kind, messageId=f"{message_id}-reasoning-{number}", **fields) for kind in kinds]

    return BlockFrames(
        lambda number: [*events(number, "REASONING_START"), *events(number, "REASONING_MESSAGE_START", role="reasoning")],
        lambda number, text: events(number, "REASONING_MESSAGE_CONTENT", delta=text),
        lambda number: events(number, "REASONING_MESSAGE_END", "REASONING_END"),
    )


AG_UI: Final = ClientProtocol(parse_request, AgUiEncoder)
