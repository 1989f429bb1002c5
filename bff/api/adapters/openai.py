"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat.

The protocol has no events for a status, for tools run by the server or for a stop. Tokens are not counted.
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
    is_truncated,
    joined_text,
    last_user_message,
    responses,
    text_only,
)
from bff.errors import BY_CODE, ChatError, InternalError
from bff.http import request_body
from bff.upstream import events

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Message(BaseModel):
    role: str
    content: Any = None


class CompletionRequest(BaseModel):
    """The body of `POST /v1/chat/completions`; sampling parameters are ignored.

    The model `default` gets the last message only, since its engine stores the history itself. Any other model is an agent,
    which gets all messages of user and assistant.
    """

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = False


def parse_request(body: bytes) -> ParsedRequest:
    request = request_body.parse(CompletionRequest, body, HISTORY_STRINGS)
    text = text_only(last_user_message(request.messages).content)
    turns = [(message.role, joined_text(message.content)) for message in request.messages]
    # Messages without text hold tool calls or images.
    history = [(role, content) for role, content in turns if role in {"user", "assistant"} and content]
    return chat_request(text, None, model=request.model, stream=bool(request.stream), history=history)


def error(problem: ChatError) -> dict[str, Any]:
    return {"error": _error(str(problem), problem.code, problem.status)}


def _error(message: str, code: str, status: int) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": code}


class OpenAiEncoder:
    """`context`: the model, and `created` as a Unix time."""

    def __init__(self, message_id: str, context: Mapping[str, Any], sent: Sent) -> None:
        self.sent = sent
        self._fields = {"id": f"chatcmpl-{message_id}", "created": context["created"], "model": context["model"]}
        self.preamble = [self._chunk({"role": "assistant", "content": ""})]

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress":
                return self._delta(content.get("text"))
            case "complete" | "stopped":
                text = [] if self.sent >= Sent.TEXT else self._delta("\n\n".join(responses(content)))
                return [*text, self._chunk({}, _finish_reason(content)), DONE]
            case "error":
                code = content.get("code", "")
                status = BY_CODE.get(code, InternalError).status
                return [as_json(error=_error(content.get("error", ""), code, status)), DONE]
        return []

    def _delta(self, text: Any) -> list[str]:
        if not isinstance(text, str) or not text:
            return []
        self.sent = Sent.TEXT
        return [self._chunk({"content": text})]

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return as_json(object="chat.completion.chunk", **self._fields, choices=[choice])


def _finish_reason(content: dict[str, Any]) -> str:
    return "length" if is_truncated(content) else "stop"


def completion(message_id: str, context: Mapping[str, Any], data: str) -> dict[str, Any]:
    """The whole reply as one object, from the `data` of its `complete` or `stopped` event."""
    content = events.parse_object(data)
    text = "\n\n".join(responses(content))
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": f"chatcmpl-{message_id}",
        "object": "chat.completion",
        "created": context["created"],
        "model": context["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(content)}],
    }


def models(ids: tuple[str, ...]) -> dict[str, Any]:
    return {"object": "list", "data": [model(name) for name in ids]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "chat-bff"}


# No ids: after an event with an id, OpenAI's Python client (3.54) reads a heartbeat's blank line as an event without data.
OPENAI: Final = ClientProtocol(parse_request, OpenAiEncoder, ids=False)
