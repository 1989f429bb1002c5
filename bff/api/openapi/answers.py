"""What we answer in JSON. Where an engine's own words pass through, only what we look at ourselves is promised."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from bff.errors import BY_CODE


class Passed(BaseModel):
    """The engine's, passed through: it may hold more."""

    model_config = ConfigDict(extra="allow")


class Problem(BaseModel):
    """Every failure has this shape, whatever its status."""

    error: str = Field(description="A sentence for the user.")
    code: str = Field(json_schema_extra={"enum": [*sorted(BY_CODE)]})
    request_id: str = Field(description="Also in the header X-Request-ID, and in the log.")


class ChatReply(Passed):
    """An answer."""

    responses: list[str]
    response_language: Any = None
    voice_audio_base64: Any = None
    voice_audio_url: Any = Field(default=None, description="For `/api/audio?url=`.")
    attachments: Any = None


class Place(BaseModel):
    message_id: str
    state: Literal["queued", "running"]
    position: int = Field(description="Messages of this user waiting ahead, plus 1; 0 while running.")


class Active(BaseModel):
    messages: list[Place]


class Stopping(BaseModel):
    status: Literal["stopping"]


class History(BaseModel):
    user_id: str
    entries: list[dict[str, Any]] = Field(description="The engine's: user_message, assistant_response, timestamp, …")
    total_count: int
    limit: int
    offset: int


class Preferences(Passed):
    response_language: Any = Field(default=None, description="Two letters.")


class Ticket(BaseModel):
    ticket: str
    expires_in: int = Field(description="Seconds in which it must open a stream.")


class Alive(Passed):
    status: str


class Ready(Passed):
    """Beside `status`, what this process needs, each by name with its state: "ok" or an error's code."""

    status: Literal["ready", "unready", "draining"]


class Agent(BaseModel):
    """Who may reply in a conversation."""

    id: str
    name: str
    description: str


class Agents(BaseModel):
    agents: list[Agent]


class Conversation(BaseModel):
    id: UUID
    title: str | None
    agentId: str | None  # noqa: N815 - as it is on the wire
    createdAt: datetime  # noqa: N815
    updatedAt: datetime  # noqa: N815


class Conversations(BaseModel):
    conversations: list[Conversation]
    nextCursor: str | None = Field(description="For the next page; null on the last one.")  # noqa: N815


class ConversationMessage(BaseModel):
    id: UUID
    conversationId: UUID  # noqa: N815
    role: Literal["user", "assistant"]
    content: str
    editedContent: str | None = Field(description="What agents are told instead of content.")  # noqa: N815
    editedAt: datetime | None  # noqa: N815
    createdAt: datetime  # noqa: N815


class Messages(BaseModel):
    messages: list[ConversationMessage]
    nextCursor: str | None = Field(description="For the next page; null on the last one.")  # noqa: N815
