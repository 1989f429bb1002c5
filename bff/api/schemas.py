"""JSON of conversations and messages, in requests and responses: camelCase, times in UTC with milliseconds."""

import hashlib
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, StringConstraints

from bff.db.models import MAX_TITLE_CHARACTERS, Conversation, Message
from bff.db.queries import as_text
from bff.db.store import Parent

MAX_CONTENT_CHARACTERS: Final = 32_000


def _validate_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _digest(text: str) -> str:
    """So that a text of any length fits the column. "" for ""."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else ""


Title = Annotated[StrictStr, StringConstraints(max_length=MAX_TITLE_CHARACTERS), AfterValidator(_validate_text)]
Content = Annotated[StrictStr, StringConstraints(max_length=MAX_CONTENT_CHARACTERS), AfterValidator(_validate_text)]
AgentId = Annotated[StrictStr, StringConstraints(min_length=1, max_length=64)]
NoneIfEmpty = BeforeValidator(lambda text: text or None)


class _RequestBody(BaseModel):
    """Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class NewConversation(_RequestBody):
    title: Title | None = None
    agent_id: AgentId | None = Field(default=None, alias="agentId")


class UpdateConversation(NewConversation):
    current_message_id: UUID | None = Field(
        default=None,
        alias="currentMessageId",
        description="Switches to the branch of this message, and there to its newest leaf; null: to the newest leaf of all.",
    )

    def changes(self) -> dict[str, Any]:
        """The fields that the request sets; None clears a field."""
        return self.model_dump(exclude_unset=True)


class EditMessage(_RequestBody):
    content: Content


class NewMessage(EditMessage):
    parent_id: UUID | None = Field(
        default=None,
        alias="parentId",
        description="The message to add this one after, instead of the current message; null begins a new branch at the root.",
    )

    @property
    def parent(self) -> Parent | None:
        """None if the request names none."""
        return Parent(self.parent_id) if "parent_id" in self.model_fields_set else None


class StreamQuery(_RequestBody):
    """The query of `GET /api/conversations/<id>/stream`."""

    agent_id: Annotated[AgentId | None, NoneIfEmpty] = Field(default=None, alias="agentId")
    message_id: Annotated[UUID | None, NoneIfEmpty] = Field(default=None, alias="messageId")
    regenerate: Annotated[str, AfterValidator(_digest)] = ""
    on_disconnect: Annotated[Literal["cancel", "continue"] | None, NoneIfEmpty] = None


def conversation(row: Conversation) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "title": row.title,
        "agentId": row.agent_id,
        "currentMessageId": row.current_message_id and str(row.current_message_id),
        "createdAt": as_text(row.created_at),
        "updatedAt": as_text(row.updated_at),
    }


def message(row: Message) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "conversationId": str(row.conversation_id),
        "parentId": row.parent_id and str(row.parent_id),
        "role": row.role,
        "content": row.content,
        "editedContent": row.edited_content,
        "editedAt": None if row.edited_at is None else as_text(row.edited_at),
        "truncated": row.truncated,
        "createdAt": as_text(row.created_at),
    }
