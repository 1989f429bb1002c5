"""The body of `POST /v1/chat/completions`: what of it an agent gets, and what is refused."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, Field

from bff.api.adapters.base import joined_text, json_safe
from bff.errors import InvalidRequest
from bff.upstream.agents import CONTINUE_ASSISTANT, RESPONSE_FORMAT, TOOL_MESSAGES, TOOLS


def _check_json(value: Any) -> Any:
    if value is not None and json_safe(value) is None:
        raise ValueError("holds a number that is too large")
    return value


JsonValue = Annotated[Any, AfterValidator(_check_json)]
"""What an agent or the client gets as it came."""
JsonObject = Annotated[dict[str, Any], AfterValidator(_check_json)]
Number = Annotated[int | float, Field(allow_inf_nan=False)]
TokenCount = Annotated[int, Field(ge=1)]

_SAMPLING: Final = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "user",
)
"""Parameters that every agent with `options` gets."""
_FIELDS: Final = {RESPONSE_FORMAT: ("response_format",), TOOLS: ("tools", "tool_choice", "parallel_tool_calls")}
"""Parameters that only agents with a feature get."""
_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_LAST_ROLES: Final = {"tool": TOOL_MESSAGES, "assistant": CONTINUE_ASSISTANT}
"""The feature that an agent needs for a last message of the role."""
_MESSAGE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {"assistant": ("tool_calls",), "tool": ("tool_call_id", "name")}
"""Further fields of messages, by role."""


class Message(BaseModel):
    role: str
    content: Any = None
    tool_calls: list[JsonObject] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """The model `default` gets the last message only, since its engine stores the history itself.

    Any other model is an agent. It gets all messages, and the sampling parameters if it has a use for them. Unknown
    parameters are ignored.
    """

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    user: str | None = None
    tools: list[JsonObject] | None = None
    tool_choice: JsonValue = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    response_format: JsonObject | None = None

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self, features: frozenset[str]) -> None:
        """`features`: those of the agent. Raises InvalidRequest for what it would not do."""
        if TOOLS not in features:
            check_choice("tool_choice", self.tool_choice)
        check_choice("function_call", self.function_call)
        if RESPONSE_FORMAT not in features and (self.response_format or {}).get("type", "text") != "text":
            raise InvalidRequest("response_format: this model replies with plain text only.", param="response_format")
        role = self.messages[-1].role
        if role != "user" and _LAST_ROLES.get(role) not in features:
            raise InvalidRequest("messages: the last one must be the user's.", param="messages")

    def options(self, features: frozenset[str]) -> dict[str, Any]:
        """What the agent gets besides the messages."""
        names = [*_SAMPLING, *(name for feature, names in _FIELDS.items() if feature in features for name in names)]
        usage = {"stream_options": {"include_usage": True}} if self.includes_usage else {}
        return {name: value for name in names if (value := getattr(self, name)) is not None} | usage

    def history(self, features: frozenset[str]) -> list[dict[str, Any]]:
        """The messages for the agent. Messages of tools, and those without text, only go to agents that can use them."""
        turns = [_turn(message, with_tools=TOOL_MESSAGES in features) for message in self.messages]
        return [turn for turn in turns if turn is not None]


def _turn(message: Message, *, with_tools: bool) -> dict[str, Any] | None:
    """None if it has nothing for the agent, such as an image without text."""
    text, role = joined_text(message.content), message.role
    fields = {name: value for name in _MESSAGE_FIELDS.get(role, ()) if (value := getattr(message, name))} if with_tools else {}
    is_tool = with_tools and role == "tool"
    if not (is_tool or role in _ROLES) or not (text or fields):
        return None
    return {"role": role, "content": text, **fields}


def characters(history: list[dict[str, Any]]) -> int:
    return sum(len(turn["content"]) + (len(json.dumps(turn["tool_calls"])) if "tool_calls" in turn else 0) for turn in history)


def check_choice(name: str, choice: Any) -> None:
    """Raises InvalidRequest if the model is required to call a tool."""
    mode = choice.get("allowed_tools", choice) if isinstance(choice, dict) else None
    if choice in (None, "none", "auto") or (isinstance(mode, dict) and mode.get("mode") == "auto"):
        return
    raise InvalidRequest(f"{name}: this model cannot be required to call a tool.", param=name)
