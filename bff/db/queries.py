"""Queries that the stores' transactions are made of."""

from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, CursorResult, Delete, Update, func, select
from sqlalchemy.orm import Session

from bff.db.models import Conversation, Message
from bff.errors import NotFound

EFFECTIVE: Final = func.coalesce(Message.edited_content, Message.content)
"""What a message was edited to, else what was said."""


def now() -> datetime:
    """To the millisecond, as it is told."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def as_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listed(owner: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """What a conversation must be to be its owner's, and no direct chat."""
    return Conversation.owner_id == owner, Conversation.hidden.is_(False)


def owned(session: Session, owner: str, conversation_id: UUID, *, for_update: bool = False) -> Conversation:
    """`for_update`: nobody else writes to it, or to its messages, before the transaction has ended. Raises NotFound."""
    found = select(Conversation).where(Conversation.id == conversation_id, *listed(owner))
    conversation = session.scalar(found.with_for_update() if for_update else found)
    if conversation is None:
        raise NotFound
    return conversation


def message(session: Session, conversation_id: UUID, message_id: UUID) -> Message:
    """Raises NotFound."""
    found = select(Message).where(Message.conversation_id == conversation_id, Message.id == message_id)
    if (row := session.scalar(found)) is None:
        raise NotFound
    return row


def last(session: Session, conversation_id: UUID) -> Message | None:
    """What the user said last."""
    found = select(Message).where(Message.conversation_id == conversation_id, Message.role == "user")
    return session.scalar(found.order_by(Message.number.desc()).limit(1))


def add(session: Session, conversation_id: UUID, role: str, content: str, moment: datetime, **more: Any) -> Message:
    row = Message(id=uuid4(), conversation_id=conversation_id, role=role, content=content, created_at=moment, **more)
    session.add(row)
    return row


def change(session: Session, what: Update | Delete) -> int:
    """How many rows it changed."""
    done = session.execute(what.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", done).rowcount
