"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat.

The protocol has no events for a status, for reasoning, for tools run by the server or for a stop. Tokens are not counted
here: `usage` is what the model's server reported.
"""

from collections.abc import Mapping
from typing import Any, Final

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
    json_safe,
    responses,
    text_only,
)
from bff.api.adapters.openai_request import CompletionRequest
from bff.errors import BY_CODE, AnswerIncomplete, ChatError, InternalError, InvalidRequest
from bff.http import request_body
from bff.upstream import events

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
NO_USAGE: Final = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def parse_request(body: bytes) -> ParsedRequest:
    """The context has the request itself: what an agent gets of it depends on the agent."""
    request = request_body.parse(CompletionRequest, body, HISTORY_STRINGS)
    last = request.messages[-1]
    # What is enqueued as the message; agents get all messages instead.
    text = text_only(last.content) if last.role == "user" else joined_text(last.content) or f"({last.role})"
    return chat_request(text, None, request=request)


def error(problem: ChatError) -> dict[str, Any]:
    param = problem.param if isinstance(problem, InvalidRequest) else ""
    return {"error": _error(str(problem), problem.code, problem.status, param)}


def _error(message: str, code: str, status: int, param: str = "") -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": param or None, "code": code}


class OpenAiEncoder:
    """`context`: the model, `created` as a Unix time, and whether `include_usage` was requested."""

    def __init__(self, message_id: str, context: Mapping[str, Any], sent: Sent) -> None:
        self.sent = sent
        self._has_text = sent >= Sent.TEXT
        self._fields = {"id": f"chatcmpl-{message_id}", "created": context["created"], "model": context["model"]}
        self._includes_usage = bool(context.get("include_usage"))
        self.preamble = [self._chunk({"role": "assistant", "content": ""})]

    def encode(self, kind: str, content: dict[str, Any]) -> list[str]:
        match kind:
            case "progress":
                return self._delta(content.get("text"))
            case "complete" | "stopped":
                return [*self._end(kind, content), DONE]
            case "error":
                code = content.get("code", "")
                status = BY_CODE.get(code, InternalError).status
                return [as_json(error=_error(content.get("error", ""), code, status)), DONE]
        return []

    def _end(self, kind: str, content: dict[str, Any]) -> list[str]:
        text = [] if self._has_text else self._delta("\n\n".join(responses(content)))
        if kind == "complete" and not self._has_text:
            return [as_json(**error(AnswerIncomplete()))]
        usage = [self._usage_chunk(content)] if self._includes_usage else []
        return [*text, self._chunk({}, _finish_reason(content)), *usage]

    def _delta(self, text: Any) -> list[str]:
        if not isinstance(text, str) or not text:
            return []
        self.sent = Sent.TEXT
        self._has_text = self._has_text or bool(text.strip())
        return [self._chunk({"content": text})]

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._includes_usage else {}
        return as_json(object="chat.completion.chunk", **self._fields, choices=[choice], **usage)

    def _usage_chunk(self, content: dict[str, Any]) -> str:
        return as_json(object="chat.completion.chunk", **self._fields, choices=[], usage=_usage(content) or NO_USAGE)


def _finish_reason(content: dict[str, Any]) -> str:
    return "length" if is_truncated(content) else "stop"


def _usage(content: dict[str, Any]) -> dict[str, Any] | None:
    """The tokens of a `complete` or `stopped` event, where the model reported them."""
    usage = json_safe(content["response"].get("usage"))
    if not isinstance(usage, dict) or not any(type(usage.get(name)) is int for name in NO_USAGE):
        return None
    return usage | {name: usage[name] if type(usage.get(name)) is int else 0 for name in NO_USAGE}


def completion(message_id: str, context: Mapping[str, Any], data: str) -> dict[str, Any]:
    """The whole reply as one object, from the `data` of its `complete` or `stopped` event. `context`: see OpenAiEncoder.

    Raises AnswerIncomplete for a complete reply without text.
    """
    content = events.parse_object(data)
    text = "\n\n".join(responses(content))
    if content["type"] == "complete" and not text.strip():
        raise AnswerIncomplete(detail="an empty reply")
    message = {"role": "assistant", "content": text, "refusal": None}
    usage = _usage(content) or (NO_USAGE if context.get("include_usage") else None)
    return {
        "id": f"chatcmpl-{message_id}",
        "object": "chat.completion",
        "created": context["created"],
        "model": context["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(content)}],
    } | ({"usage": usage} if usage else {})


def models(ids: tuple[str, ...]) -> dict[str, Any]:
    return {"object": "list", "data": [model(name) for name in ids]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "chat-bff"}


# No ids: after an event with an id, OpenAI's Python client (3.54) reads a heartbeat's blank line as an event without data.
OPENAI: Final = ClientProtocol(parse_request, OpenAiEncoder, ids=False)
