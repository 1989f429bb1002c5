"""What a browser may say of conversations, and what it is told: camelCase, times in UTC with milliseconds."""

import hashlib
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, StringConstraints

from bff.db.models import MAX_TITLE_CHARACTERS, Conversation, Message
from bff.db.queries import as_text

MAX_CONTENT_CHARACTERS: Final = 32_000
"""Characters."""


def _something(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold NUL characters")
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _digest(text: str) -> str:
    """Any text at all fits the column then."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else ""


Title = Annotated[StrictStr, StringConstraints(max_length=MAX_TITLE_CHARACTERS), AfterValidator(_something)]
Content = Annotated[StrictStr, StringConstraints(max_length=MAX_CONTENT_CHARACTERS), AfterValidator(_something)]
AgentId = Annotated[StrictStr, StringConstraints(min_length=1, max_length=64)]
NoneIfEmpty = BeforeValidator(lambda text: text or None)


class _Said(BaseModel):
    """Keys that it does not name are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class NewConversation(_Said):
    title: Title | None = None
    agent_id: AgentId | None = Field(default=None, alias="agentId")


class UpdateConversation(NewConversation):
    def changes(self) -> dict[str, str | None]:
        """Only what was given; None clears."""
        return self.model_dump(exclude_unset=True)


class NewMessage(_Said):
    content: Content


class EditMessage(NewMessage):
    pass


class StreamMessage(_Said):
    """The query of a stream."""

    agent_id: Annotated[AgentId | None, NoneIfEmpty] = Field(default=None, alias="agentId")
    message_id: Annotated[UUID | None, NoneIfEmpty] = Field(default=None, alias="messageId")
    regenerate: Annotated[str, AfterValidator(_digest)] = ""
    on_disconnect: Annotated[Literal["cancel", "continue"] | None, NoneIfEmpty] = None


def conversation(row: Conversation) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "title": row.title,
        "agentId": row.agent_id,
        "createdAt": as_text(row.created_at),
        "updatedAt": as_text(row.updated_at),
    }


def message(row: Message) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "conversationId": str(row.conversation_id),
        "role": row.role,
        "content": row.content,
        "editedContent": row.edited_content,
        "editedAt": None if row.edited_at is None else as_text(row.edited_at),
        "createdAt": as_text(row.created_at),
    }
