"""The tables, as `migrations/` makes them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
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
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself in an INTEGER only.


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite has no time zones: there it is text, which sorts as the times do."""

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
    """The direct chat of its owner: nobody lists it."""


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
    )

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    """The order in which they were said, which two times in one millisecond would not tell."""
    id: Mapped[UUID] = mapped_column(unique=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("chat_conversations.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    edited_content: Mapped[str | None] = mapped_column(Text)
    edited_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    reply_to: Mapped[UUID | None]
    """The user's message that this one answers."""
    question_version: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of that message when it was answered: see `version`."""
    regenerate: Mapped[str] = mapped_column(String(64), default="")
    """What of a further reply to the same message there is only one: a digest of the text it was asked for with."""
    turn_id: Mapped[str | None] = mapped_column(String(128))
    """Of a reply in the direct chat: the id of its message in the queue."""
    spoken: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """In the direct chat: the question was spoken, and the reply can be heard."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    @property
    def version(self) -> int:
        """Milliseconds since 1970 of its last edit, 0 where there was none."""
        return 0 if self.edited_at is None else round(self.edited_at.timestamp() * 1000)
