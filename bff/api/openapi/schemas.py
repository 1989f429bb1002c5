"""Models of JSON responses. Class names are the schemas' names in the document and docstrings are their descriptions.

Of objects that come from the engine only the fields that we read ourselves are described.
"""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from bff.errors import BY_CODE


class Passed(BaseModel):
    """An object from the engine; it may have more fields."""

    model_config = ConfigDict(extra="allow")


class Problem(BaseModel):
    """Every error has this shape, whatever its status."""

    error: str = Field(description="A message for the user.")
    code: str = Field(json_schema_extra={"enum": [*sorted(BY_CODE)]})
    request_id: str = Field(description="Also in the header X-Request-ID and in the log.")


class ChatReply(Passed):
    """A reply."""

    responses: list[str]
    response_language: Any = None
    voice_audio_base64: Any = None
    voice_audio_url: Any = Field(default=None, description="For `/api/audio?url=`.")
    attachments: Any = None
    truncated: Any = Field(default=None, description="True if the model's own limit cut the reply short.")
    usage: Any = Field(default=None, description="The tokens that the model counted, if its server reported them.")


class QueuePosition(BaseModel):
    message_id: str
    state: Literal["queued", "running"]
    position: int = Field(description="The user's messages ahead of this one, plus 1; 0 while running.")


class Active(BaseModel):
    messages: list[QueuePosition]


class ActiveRun(BaseModel):
    runId: str  # noqa: N815 - TanStack AI's name


class Thread(BaseModel):
    messages: list[Any] = Field(max_length=0, description="Empty: the client keeps the transcript.")
    activeRun: ActiveRun | None = Field(description="The run that waits or runs in the thread.")  # noqa: N815
    interrupts: None


class Stopping(BaseModel):
    status: Literal["stopping"]


class History(BaseModel):
    user_id: str
    entries: list[dict[str, Any]] = Field(description="From the engine: user_message, assistant_response, timestamp, …")
    total_count: int
    limit: int
    offset: int


class Preferences(Passed):
    response_language: Any = Field(default=None, description="A two-letter code.")


class Ticket(BaseModel):
    ticket: str
    expires_in: int = Field(description="Seconds within which it must open a stream.")


class Alive(Passed):
    status: str


class Ready(Passed):
    """Besides `status`, a field for each dependency of the process: "ok" or an error code."""

    status: Literal["ready", "unready", "draining"]


class Agent(BaseModel):
    """An agent that can reply in a conversation."""

    id: str
    name: str
    description: str


class Agents(BaseModel):
    agents: list[Agent]


class Conversation(BaseModel):
    id: UUID
    title: str | None
    agentId: str | None  # noqa: N815 - the wire format
    currentMessageId: UUID | None = Field(description="The last message of the current branch.")  # noqa: N815
    createdAt: datetime  # noqa: N815
    updatedAt: datetime  # noqa: N815


class Conversations(BaseModel):
    conversations: list[Conversation]
    nextCursor: str | None = Field(description="Cursor of the next page; null on the last page.")  # noqa: N815


class ConversationMessage(BaseModel):
    id: UUID
    conversationId: UUID  # noqa: N815
    parentId: UUID | None = Field(description="The message before it in its branch; null for the first.")  # noqa: N815
    role: Literal["user", "assistant"]
    content: str
    editedContent: str | None = Field(description="If set, agents get this text instead of content.")  # noqa: N815
    editedAt: datetime | None  # noqa: N815
    truncated: bool = Field(description="Whether the model's own limit cut the reply short.")
    createdAt: datetime  # noqa: N815


class Messages(BaseModel):
    messages: list[ConversationMessage]
    nextCursor: str | None = Field(description="Cursor of the next page; null on the last page.")  # noqa: N815


class OpenAIProblem(BaseModel):
    """Every error under /v1; `error.code` is one of the codes of `Problem`."""

    error: dict[str, Any]


class Choice(Passed):
    index: int
    finish_reason: str | None


class Completion(Passed):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]


class Chunk(Passed):
    """A part of a reply. The text `[DONE]`, which is not JSON, follows the last one."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[Choice]


class ModelName(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelNames(BaseModel):
    object: Literal["list"]
    data: list[ModelName]


class ModelResponse(Passed):
    """A response. It has all fields of OpenAI's object."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, Any]]


class ResponseEvent(Passed):
    """An event of a response, as OpenAI's API has it."""

    type: str
    sequence_number: int = Field(description="Counts from 0, without gaps; the same for all readers.")


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItems(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
