"""Models of stream events: one for each `type` of a chat reply's events, then those of a conversation's reply."""

from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from bff.api.openapi.schemas import ChatReply, Passed, Problem


class Status(Passed):
    """The message's status: "Message queued...", "Processing...", or a text from the engine."""

    type: Literal["status"]
    message: Any
    position: int | None = Field(default=None, description="The user's messages ahead of this one, plus 1; 0 while running.")


class Progress(Passed):
    """A part of the reply's text."""

    type: Literal["progress"]
    text: Any


class Complete(Passed):
    """Terminal: the whole reply."""

    type: Literal["complete"]
    response: ChatReply


class Stopped(Passed):
    """Terminal, only after a stop: the text so far."""

    type: Literal["stopped"]
    response: ChatReply


class Error(Problem):
    """Terminal."""

    type: Literal["error"]


class ToolUse(Passed):
    """The engine calls a tool; the fields are the engine's."""

    type: Literal["tool_use"]


class ToolResult(Passed):
    """A tool's result; the fields are the engine's."""

    type: Literal["tool_result"]


class Reasoning(Passed):
    """What a model says to itself; no part of the reply."""

    type: Literal["reasoning"]
    text: Any


class Restart(Passed):
    """The reply starts again; discard its earlier events."""

    type: Literal["restart"]


class Keepalive(Passed):
    """A heartbeat after silence. Never carries an id."""

    type: Literal["keepalive"]


class Token(BaseModel):
    """A part of the reply's text."""

    token: str


class Done(BaseModel):
    """Terminal: the reply is stored as this message."""

    messageId: UUID  # noqa: N815 - the wire format
    truncated: bool | None = Field(default=None, description="Present, and true, if the model's own limit cut the reply short.")


class Failure(Problem):
    """Terminal: the reply failed."""


class ReplyStopped(BaseModel):
    """Terminal, only after a stop: the message as which the text so far is stored, or null."""

    messageId: UUID | None  # noqa: N815


class ReplyRestart(BaseModel):
    """The reply starts again; discard its earlier tokens."""


class Tick(BaseModel):
    """One of ten timed events: those that arrive together were buffered by a proxy."""

    type: Literal["tick"]
    number: int
    of: int
    sent_ms: int = Field(description="Unix time in milliseconds, by the server's clock.")
    elapsed_ms: int = Field(description="Milliseconds since the stream began.")


CHAT: Final = (Status, Progress, Complete, Error, Stopped, ToolUse, ToolResult, Reasoning, Restart, Keepalive)
CONVERSATION: Final[dict[str, tuple[type[BaseModel], ...]]] = {
    "token": (Token,),
    "done": (Done,),
    "failure": (Failure,),
    "stopped": (ReplyStopped,),
    "restart": (ReplyRestart,),
}
