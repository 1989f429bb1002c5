"""The AI SDK's UI message stream, version 1: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol.

Its schema was strict until version 6 of the SDK: a field it does not know ended the stream. So there are none; what it has
no part for is a transient `data-…` part, which reaches `onData` and is kept in no message.
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
    asking,
    extra_fields,
    json_safe,
    last_of,
    text_of,
)
from bff.api.adapters.texts import TextFrames, Texts
from bff.api.adapters.tools import Call, Result, Tools
from bff.http import request_body


class UIMessage(BaseModel):
    role: str
    id: str = ""
    parts: list[Any] = []


class ChatTransportRequest(BaseModel):
    """What `DefaultChatTransport` sends. Only the last message is said: the engine remembers the others itself."""

    messages: list[UIMessage] = Field(min_length=1)
    trigger: str = "submit-message"
    message_id: str | None = Field(default=None, alias="messageId")
    """The message that is said anew: edited, or its answer regenerated."""
    on_busy: Any = None


def parsed(body: bytes) -> ParsedRequest:
    request = request_body.validated(ChatTransportRequest, body, HISTORY_STRINGS)
    said = last_of(request.messages)
    # A message that is sent again is another message: under its old id its old reply would come back.
    anew = request.trigger != "submit-message" or request.message_id is not None
    return asking(text_of(said.parts), None if anew else said.id, request.on_busy)


class AiSdkEncoder:
    def __init__(self, message_id: str, _: Mapping[str, Any], sent: Sent) -> None:
        self.preamble = [as_json(type="start", messageId=message_id)]
        self._texts = Texts(_TEXT, sent >= Sent.TEXT)
        self._tools = Tools(message_id, sent >= Sent.TOOLS)

    @property
    def sent(self) -> Sent:
        return Sent.of(text=self._texts.text_sent, tools=self._tools.text_sent)

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress":
                return self._texts.piece(content)
            case "tool_use":
                return [*self._texts.end(), _call(self._tools.call(content))]
            case "tool_result":
                return [*self._texts.end(), *_result(self._tools.result(content))]
            case "complete":
                return [*self._texts.rest(content), _data("response", extra_fields(content)), as_json(type="finish"), DONE]
            case "stopped":
                return [*self._texts.rest(content), as_json(type="abort"), DONE]
            case "error":
                return [*self._texts.end(), *_error(content), DONE]
            case "keepalive" | "restart":
                return []
        return [_data(kind, json_safe(content))]


def _call(call: Call) -> str:
    """`providerExecuted`: the engine runs its tools itself, so that no client tries to."""
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
    said = as_json(type="tool-output-available", toolCallId=call.id, output=output, providerExecuted=True, dynamic=True)
    return [_call(call), said] if new else [said]


def _error(content: dict[str, Any]) -> list[str]:
    why = {name: content.get(name) for name in ("code", "request_id")}
    return [_data("error", why), as_json(type="error", errorText=content.get("error"))]


def _data(name: str, data: Any) -> str:
    return as_json(type=f"data-{name}", data=data, transient=True)


_TEXT: Final = TextFrames(
    lambda number: as_json(type="text-start", id=f"text-{number}"),
    lambda number, text: as_json(type="text-delta", id=f"text-{number}", delta=text),
    lambda number: as_json(type="text-end", id=f"text-{number}"),
)

AI_SDK: Final = ClientProtocol(parsed, AiSdkEncoder, {"x-vercel-ai-ui-message-stream": "v1"})
