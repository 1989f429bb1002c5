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
    json_safe,
    last_user_message,
    text_only,
)
from bff.api.adapters.texts import TextFrames, Texts
from bff.api.adapters.tools import Call, Result, Tools
from bff.http import request_body


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
    message = last_user_message(request.messages)
    forwarded = request.forwarded if isinstance(request.forwarded, dict) else {}
    # The run id is the idempotency key: a message repeated in a new run gets a new reply, the same run gets the same reply.
    return chat_request(
        text_only(message.content), request.run_id, forwarded.get("on_busy"), threadId=request.thread_id, runId=request.run_id
    )


class AgUiEncoder:
    """`context`: threadId and runId; the message id replaces one that is missing."""

    def __init__(self, message_id: str, context: Mapping[str, Any], sent: Sent) -> None:
        self._run = {name: context.get(name) or message_id for name in ("threadId", "runId")}
        self._texts = Texts(_frames(message_id), sent >= Sent.TEXT)
        self._tools = Tools(message_id, sent >= Sent.TOOLS)
        self.preamble = [as_json(type="RUN_STARTED", **self._run), _custom("message_id", message_id)]

    @property
    def sent(self) -> Sent:
        return Sent.of(text=self._texts.text_sent, tools=self._tools.sent)

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress":
                return self._texts.progress(content)
            case "tool_use":
                return [*self._texts.end(), *_call(self._tools.call(content))]
            case "tool_result":
                return [*self._texts.end(), *_result(self._tools.result(content))]
            case "complete":
                return [*self._texts.finish(content), _custom("response", extra_fields(content)), self._finished()]
            case "stopped":
                return [*self._texts.finish(content), self._finished(outcome={"type": "cancelled"})]
            case "error":
                return [*self._texts.end(), *_error(content)]
            case "keepalive" | "restart":
                return []
        return [_custom(kind, json_safe(content))]

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


def _custom(name: str, value: Any) -> str:
    return as_json(type="CUSTOM", name=name, value=value)


def _frames(message_id: str) -> TextFrames:
    """Each text block after the first is a message with its own id."""

    def text_id(number: int) -> str:
        return message_id if number == 1 else f"{message_id}-{number}"

    return TextFrames(
        lambda number: as_json(type="TEXT_MESSAGE_START", messageId=text_id(number), role="assistant"),
        lambda number, text: as_json(type="TEXT_MESSAGE_CONTENT", messageId=text_id(number), delta=text),
        lambda number: as_json(type="TEXT_MESSAGE_END", messageId=text_id(number)),
    )


AG_UI: Final = ClientProtocol(parse_request, AgUiEncoder)
