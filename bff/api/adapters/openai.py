"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat.

It has no word for a status, for tools that the other side runs itself, or for a stop; tokens are not counted here.
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
    joined,
    last_of,
    responses,
    text_of,
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
    """The model `default` is said the last message only: its engine remembers the others itself. An agent is given all that
    user and assistant said. Parameters of a model's are its own affair.
    """

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = False


def parsed(body: bytes) -> ParsedRequest:
    request = request_body.validated(CompletionRequest, body, HISTORY_STRINGS)
    now = text_of(last_of(request.messages).content)
    spoken = (said for said in request.messages if said.role in {"user", "assistant"})
    history = [(said.role, text) for said in spoken if (text := joined(said.content))]  # Others call tools, or show images.
    return asking(now, None, model=request.model, stream=bool(request.stream), history=history)


def error(problem: ChatError) -> dict[str, Any]:
    return {"error": _error(str(problem), problem.code, problem.status)}


def _error(message: str, code: str, status: int) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": code}


class OpenAiEncoder:
    """`about`: model; created, in seconds since 1970."""

    def __init__(self, message_id: str, about: Mapping[str, Any], sent: Sent) -> None:
        self.sent = sent
        self._about = {"id": f"chatcmpl-{message_id}", "created": about["created"], "model": about["model"]}
        self.preamble = [self._chunk({"role": "assistant", "content": ""})]

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress":
                return self._delta(content.get("text"))
            case "complete" | "stopped":
                untold = [] if self.sent >= Sent.TEXT else self._delta("\n\n".join(responses(content)))
                return [*untold, self._chunk({}, "stop"), DONE]
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

    def _chunk(self, delta: dict[str, Any], why: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": why}
        return as_json(object="chat.completion.chunk", **self._about, choices=[choice])


def completion(message_id: str, about: Mapping[str, Any], last: str) -> dict[str, Any]:
    """The whole answer as one object, from the data of its last event, a `complete` or `stopped`."""
    text = "\n\n".join(responses(events.parsed_object(last)))
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": f"chatcmpl-{message_id}",
        "object": "chat.completion",
        "created": about["created"],
        "model": about["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
    }


def models(ids: tuple[str, ...]) -> dict[str, Any]:
    return {"object": "list", "data": [model(name) for name in ids]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "chat-bff"}


# Once it has seen an id, OpenAI's client for Python (3.54) takes a heartbeat's blank line for an event without data.
OPENAI: Final = ClientProtocol(parsed, OpenAiEncoder, ids=False)
