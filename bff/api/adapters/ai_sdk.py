"""The AI SDK's UI message stream, version 1: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol.

Until version 6 the SDK's schema was strict and an unknown field ended the stream, so no part has additional fields. Events
that have no part of their own become transient `data-…` parts, which reach `onData` and are not stored in the message.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, Field

from bff.api.adapters.base import (
    DONE,
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


class UIMessage(BaseModel):
    role: str
    id: str = ""
    parts: list[Any] = []


class ChatTransportRequest(BaseModel):
    """The body that `DefaultChatTransport` sends. Only the last message is used: the engine stores the history itself."""

    id: Any = None
    """The chat's id, with which the SDK resumes."""
    messages: list[UIMessage] = Field(min_length=1)
    trigger: str = "submit-message"
    message_id: str | None = Field(default=None, alias="messageId")
    """Set when a message was edited or its reply is regenerated."""
    on_busy: Any = None


def parse_request(body: bytes) -> ParsedRequest:
    request = request_body.parse(ChatTransportRequest, body, HISTORY_STRINGS)
    message = last_user_message(request.messages)
    # An edited or regenerated message needs a new reply; with its old id it would get the old one.
    repeated = request.trigger != "submit-message" or request.message_id is not None
    key = None if repeated else message.id
    chat_id = request.id if isinstance(request.id, str) else ""
    return chat_request(text_only(message.parts), key, request.on_busy, chat_id=chat_id)


class AiSdkEncoder:
    def __init__(self, message_id: str, _: Mapping[str, Any], sent: Sent) -> None:
        self.preamble = [as_json(type="start", messageId=message_id)]
        self._texts = Texts(_frames("text"), _frames("reasoning"), text_sent=sent >= Sent.TEXT)
        self._tools = Tools(message_id, sent >= Sent.TOOLS)

    @property
    def sent(self) -> Sent:
        return Sent.of(text=self._texts.text_sent, tools=self._tools.sent)

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress" | "reasoning":
                return self._texts.add(kind, content)
            case "tool_use":
                return [*self._texts.end(), _call(self._tools.call(content))]
            case "tool_result":
                return [*self._texts.end(), *_result(self._tools.result(content))]
            case "complete":
                return [*self._texts.finish(content), _data("response", extra_fields(content)), _finish(content), DONE]
            case "stopped":
                return [*self._texts.finish(content), as_json(type="abort"), DONE]
            case "error":
                return [*self._texts.end(), *_error(content), DONE]
            case "restart":
                return self._texts.end()
            case "keepalive":
                return []
        return [_data(kind, json_safe(content))]


class WorkflowEncoder(AiSdkEncoder):
    """For `WorkflowChatTransport` of `@ai-sdk/workflow`, which reconnects until it has read a `finish` part.

    So an error and a stop end with one, too. The parts before it are the same, as this transport counts them.
    """

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        parts = super().encode(kind, content)
        return [*parts[:-1], as_json(type="finish"), DONE] if kind in {"stopped", "error"} else parts


def _call(call: Call) -> str:
    """`providerExecuted` tells the client that the engine runs the tool."""
    return as_json(
        type="tool-input-available",
        toolCallId=call.id,
        toolName=call.name,
        input=call.input,
        providerExecuted=True,
        dynamic=True,
    )


def _result(result: Result) -> list[str]:
    call, new, output = result
    part = as_json(type="tool-output-available", toolCallId=call.id, output=output, providerExecuted=True, dynamic=True)
    return [_call(call), part] if new else [part]


def _finish(content: dict[str, Any]) -> str:
    """The reason is given only for a truncated reply: SDK versions that do not know the field refuse the part."""
    return as_json(type="finish", finishReason="length") if is_truncated(content) else as_json(type="finish")


def _error(content: dict[str, Any]) -> list[str]:
    details = {name: content.get(name) for name in ("code", "request_id")}
    return [_data("error", details), as_json(type="error", errorText=content.get("error"))]


def _data(name: str, data: Any) -> str:
    return as_json(type=f"data-{name}", data=data, transient=True)


def _frames(kind: str) -> BlockFrames:
    return BlockFrames(
        lambda number: [as_json(type=f"{kind}-start", id=f"{kind}-{number}")],
        lambda number, text: [as_json(type=f"{kind}-delta", id=f"{kind}-{number}", delta=text)],
        lambda number: [as_json(type=f"{kind}-end", id=f"{kind}-{number}")],
    )


NOTHING_RUNS: Final = "".join(f"data: {data}\n\n" for data in (as_json(type="finish"), DONE))
"""The stream of a chat in which no reply runs, for `WorkflowChatTransport`: it takes a status without a body for an error."""
RUN_HEADER: Final = "x-workflow-run-id"
AI_SDK: Final = ClientProtocol(parse_request, AiSdkEncoder, {"x-vercel-ai-ui-message-stream": "v1"}, RUN_HEADER)
WORKFLOW: Final = AI_SDK._replace(encoder=WorkflowEncoder)
