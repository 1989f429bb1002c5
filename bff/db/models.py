"""The tables, as `migrations/` creates them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

MAX_TITLE_CHARACTERS = 200
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite auto-increments INTEGER only.


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite has no time zones: it stores text, which sorts in the order of the times."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Conversation(Base):
    __tablename__ = "chat_conversations"
    __table_args__ = (Index("ix_chat_conversations_owner", "owner_id", "updated_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(String(400))
    title: Mapped[str | None] = mapped_column(String(MAX_TITLE_CHARACTERS))
    agent_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    hidden: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Not listed: it holds its owner's direct chat, where messages have no parents, or responses of /v1/responses."""
    current_message_id: Mapped[UUID | None]
    """The leaf of the current branch; None if there are no messages."""


class Preference(Base):
    __tablename__ = "chat_preferences"

    owner_id: Mapped[str] = mapped_column(String(400), primary_key=True)
    response_language: Mapped[str] = mapped_column(String(2))


class Message(Base):
    __tablename__ = "chat_messages"
    __table_args__ = (
        UniqueConstraint("reply_to", "question_version", "regenerate", name="uq_chat_messages_reply"),
        Index("ix_chat_messages_conversation", "conversation_id", "number"),
        Index("uq_chat_messages_turn", "conversation_id", "turn_id", unique=True),
        Index("ix_chat_messages_reply_to", "reply_to"),
        Index("ix_chat_messages_parent", "parent_id"),
    )

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    """Orders the messages; two can have the same `created_at`."""
    id: Mapped[UUID] = mapped_column(unique=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("chat_conversations.id", ondelete="CASCADE"))
    parent_id: Mapped[UUID | None]
    """The message before it in its branch; None for a root. See bff/db/branches.py."""
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    edited_content: Mapped[str | None] = mapped_column(Text)
    edited_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    reply_to: Mapped[UUID | None]
    """Of a reply: the id of the user's message."""
    question_version: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of a reply: the `version` of the user's message that it replies to."""
    regenerate: Mapped[str] = mapped_column(String(64), default="")
    """Of a further reply to the same version: the digest of the request's `regenerate` text, unique per version."""
    turn_id: Mapped[str | None] = mapped_column(String(128))
    """Of a reply in the direct chat: the message's id in the queue."""
    spoken: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """In the direct chat: the question was a voice message, and the reply has audio."""
    truncated: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Of a reply: the model's own limit cut it short."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    @property
    def version(self) -> int:
        """Time of the last edit, in milliseconds since the epoch; 0 if never edited."""
        return 0 if self.edited_at is None else round(self.edited_at.timestamp() * 1000)


class StoredResponse(Base):
    """A response of /v1/responses. Its input and output are messages of a hidden conversation, a branch of its tree."""

    __tablename__ = "chat_responses"
    __table_args__ = (Index("ix_chat_responses_conversation", "conversation_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(String(400))
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("chat_conversations.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(String(128))
    """Of the message in the queue."""
    agent_id: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    """Of the request: a request with the same Idempotency-Key must be equal."""
    fields: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Of the response object, as the request set them."""
    options: Mapped[dict[str, Any]] = mapped_column(JSON)
    """For the agent."""
    inputs: Mapped[list[list[int]]] = mapped_column(JSON)
    """Of each input item: the number of characters of each part of its text."""
    question_id: Mapped[UUID]
    """The message of the last input item; its ancestors are the other ones, and then the previous response."""
    reply_id: Mapped[UUID | None]
    """The message of the output; None if there is none."""
    status: Mapped[str] = mapped_column(String(16))
    """UNFINISHED, or how it ended."""
    error_code: Mapped[str] = mapped_column(String(64), server_default="")
    """Of a failed response: a code of bff/errors.py."""
    blocks: Mapped[list[list[Any]]] = mapped_column(JSON)
    """See `OutputBlock`; for text, the number of characters of the reply in its place."""
    usage: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
