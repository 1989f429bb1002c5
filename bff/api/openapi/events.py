"""The events of streams: one model for each `type` of a chat reply's event, then those of a conversation's reply."""

from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from bff.api.openapi.answers import ChatReply, Passed, Problem


class Status(Passed):
    """Where the message is: "Message queued...", "Processing...", or the engine's own words."""

    type: Literal["status"]
    message: Any
    position: int | None = Field(default=None, description="Messages of this user waiting ahead, plus 1; 0 while running.")


class Progress(Passed):
    """A piece of the answer."""

    type: Literal["progress"]
    text: Any


class Complete(Passed):
    """Terminal: the whole answer."""

    type: Literal["complete"]
    response: ChatReply


class Stopped(Passed):
    """Terminal, after a stop only: what had been said."""

    type: Literal["stopped"]
    response: ChatReply


class Error(Problem):
    """Terminal."""

    type: Literal["error"]


class ToolUse(Passed):
    """The engine uses a tool; as it says so."""

    type: Literal["tool_use"]


class ToolResult(Passed):
    """What the tool gave; as the engine says it."""

    type: Literal["tool_result"]


class Restart(Passed):
    """What was said of the answer before no longer counts: it begins anew."""

    type: Literal["restart"]


class Keepalive(Passed):
    """A sign of life after silence. Never carries an id."""

    type: Literal["keepalive"]


class Token(BaseModel):
    """A piece of a reply."""

    token: str


class Done(BaseModel):
    """Terminal: the reply is kept, as this message."""

    messageId: UUID  # noqa: N815 - as it is on the wire


class Failure(Problem):
    """Terminal: there is no reply."""


class ReplyStopped(BaseModel):
    """Terminal, after a stop only: as which message what had been said is stored, if it is."""

    messageId: UUID | None  # noqa: N815


class ReplyRestart(BaseModel):
    """The tokens before it no longer count: the reply begins anew."""


class Tick(BaseModel):
    """One of ten, at a steady pace: what comes in a lump was held up on the way."""

    type: Literal["tick"]
    number: int
    of: int
    sent_ms: int = Field(description="By the server's clock, since 1970.")
    elapsed_ms: int = Field(description="Since the stream began.")


ANSWER: Final = (Status, Progress, Complete, Error, Stopped, ToolUse, ToolResult, Restart, Keepalive)
REPLY: Final[dict[str, tuple[type[BaseModel], ...]]] = {
    "token": (Token,),
    "done": (Done,),
    "failure": (Failure,),
    "stopped": (ReplyStopped,),
    "restart": (ReplyRestart,),
}
