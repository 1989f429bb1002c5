"""The body of `POST /v1/responses`: what of it an agent gets, and what is refused."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, StringConstraints

from bff.api.adapters.base import HISTORY_STRINGS
from bff.api.adapters.openai_request import JsonObject, JsonValue, Number, TokenCount, check_choice
from bff.db.responses import InputItem
from bff.errors import InvalidRequest, TooLarge
from bff.http import request_body
from bff.upstream.agents import CONTINUE_ASSISTANT, RESPONSE_FORMAT, TOOLS

MAX_CHARACTERS: Final = 1_000_000
"""Of instructions and input together."""
MAX_METADATA: Final = 16
_ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
_TEXTS: Final = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""The field that has the text, by type of a content part."""
_SAMPLING: Final = ("temperature", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty", "user")
_REFUSED: Final = ("conversation", "prompt", "include", "context_management", "moderation", "top_logprobs")
"""Parameters that change the response in a way that we cannot."""

MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class ResponseRequest(BaseModel):
    """The response is an agent's; the model `default` is the agent of direct chat. Unknown parameters are ignored."""

    model: str
    input: str | list[Any]
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    max_output_tokens: TokenCount | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    user: str | None = None
    text: JsonObject | None = None
    tools: list[JsonObject] | None = None
    tool_choice: JsonValue = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    include: Any = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    top_logprobs: Any = None

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    @property
    def digest(self) -> str:
        """Equal for requests that may have one Idempotency-Key."""
        return sha256(self.model_dump_json(exclude={"stream"}).encode()).hexdigest()

    @property
    def text_format(self) -> dict[str, Any]:
        """Raises InvalidRequest."""
        format_ = (self.text or {}).get("format") or {"type": "text"}
        if not isinstance(format_, dict) or format_.get("type") not in {"text", "json_object", "json_schema"}:
            raise InvalidRequest("text.format: is not valid.", param="text.format")
        return format_

    def check(self, features: frozenset[str]) -> None:
        """`features`: those of the agent. Raises InvalidRequest for what it would not do."""
        for name in _REFUSED:
            if getattr(self, name):
                raise InvalidRequest(f"{name}: is not supported.", param=name)
        if TOOLS not in features:
            check_choice("tool_choice", self.tool_choice)
        if RESPONSE_FORMAT not in features and self.text_format["type"] != "text":
            raise InvalidRequest("text.format: this model replies with plain text only.", param="text.format")
        if self.background and not self.is_stored:
            raise InvalidRequest("background: needs a stored response.", param="background")

    def items(self, features: frozenset[str]) -> list[InputItem]:
        """The input. Raises InvalidRequest, TooLarge."""
        whole = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        items = [item for index, value in enumerate(whole) if (item := _item(value, f"input[{index}]")) is not None]
        if not any(item.text.strip() for item in items):
            raise InvalidRequest("input: must contain text.", param="input")
        if items[-1].role != "user" and not (items[-1].role == "assistant" and CONTINUE_ASSISTANT in features):
            raise InvalidRequest("input: the last message must be the user's.", param="input")
        if "\0" in (self.instructions or "") or any("\0" in item.text for item in items):
            raise InvalidRequest("input: must not contain NUL characters.", param="input")
        if sum(len(item.text) for item in items) + len(self.instructions or "") > MAX_CHARACTERS:
            raise TooLarge("input: too much for an agent.")
        return items

    def options(self, features: frozenset[str]) -> dict[str, Any]:
        """What the agent gets besides the messages, in the form of a chat completion."""
        options: dict[str, Any] = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        if self.max_output_tokens is not None:
            options["max_completion_tokens"] = self.max_output_tokens
        if RESPONSE_FORMAT in features and self.text_format["type"] != "text":
            options["response_format"] = _response_format(self.text_format)
        return options | {"stream_options": {"include_usage": True}}

    def fields(self) -> dict[str, Any]:
        """Of the response object. Where the request sets no number, OpenAI's default."""
        return {
            "model": self.model,
            "instructions": self.instructions,
            "background": bool(self.background),
            "store": self.is_stored,
            "previous_response_id": self.previous_response_id,
            "metadata": self.metadata or {},
            "temperature": _number(self.temperature, 1.0),
            "top_p": _number(self.top_p, 1.0),
            "frequency_penalty": _number(self.frequency_penalty, 0.0),
            "presence_penalty": _number(self.presence_penalty, 0.0),
            "top_logprobs": 0,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": None,
            "text": {"format": self.text_format},
            "reasoning": {"effort": None, "summary": None},
            "tools": [],
            "tool_choice": self.tool_choice if self.tool_choice == "none" else "auto",
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "truncation": self.truncation or "disabled",
            "service_tier": "default",
            "user": self.user,
            "safety_identifier": self.safety_identifier,
            "prompt_cache_key": self.prompt_cache_key,
        }


def parse(body: bytes) -> ResponseRequest:
    """Raises InvalidRequest."""
    return request_body.parse(ResponseRequest, body, HISTORY_STRINGS)


def _number(value: float | None, default: float) -> float:
    return default if value is None else value


def _item(value: Any, param: str) -> InputItem | None:
    """None for reasoning, which clients send back with the output of earlier responses."""
    kind = value.get("type", "message") if isinstance(value, dict) else None
    if kind == "reasoning":
        return None
    if kind != "message":
        raise InvalidRequest(f"{param}: must be a message.", param=param)
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"{param}.role: must be one of {', '.join(sorted(_ROLES))}.", param=f"{param}.role")
    content = value.get("content")
    if isinstance(content, str):
        return InputItem(role, [content])
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{param}.content: must be text, or a list of parts.", param=f"{param}.content")
    return InputItem(role, [_text(part, f"{param}.content[{index}]") for index, part in enumerate(content)])


def _text(part: Any, param: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(_TEXTS[kind]) if isinstance(kind, str) and kind in _TEXTS else None
    if not isinstance(text, str):
        raise InvalidRequest(f"{param}: must be text; files, images and audio are not supported.", param=param)
    return text


def _response_format(format_: Mapping[str, Any]) -> dict[str, Any]:
    """The format as a chat completion has it."""
    if format_["type"] != "json_schema":
        return {"type": format_["type"]}
    return {"type": "json_schema", "json_schema": {name: format_[name] for name in format_ if name != "type"}}
