"""Queries shared by the stores. Each runs inside a transaction of its caller."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, Final, cast
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, CursorResult, Delete, Update, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from bff.db.models import Conversation, Message
from bff.errors import NotFound

EFFECTIVE: Final = func.coalesce(Message.edited_content, Message.content)
"""The text after the last edit, else the original one."""


def among(column: InstrumentedAttribute[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether the column has one of the values, the last of which is repeated up to a power of two.

    Each number of values is a statement of its own, and SQLite's driver keeps the last 128 of them: those for histories of all
    lengths would take some 10 MiB, and displace the others.
    """
    count = 1 << (len(values) - 1).bit_length()
    return column.in_([*values, *repeat(values[-1], count - len(values))] if values else [])


def now() -> datetime:
    """Truncated to milliseconds, the precision of the API."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def as_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listed(owner: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions: the owner's conversations without the hidden one of the direct chat."""
    return Conversation.owner_id == owner, Conversation.hidden.is_(False)


def owned(session: Session, owner: str, conversation_id: UUID, *, for_update: bool = False) -> Conversation:
    """`for_update`: locks it until the transaction ends; writers of its messages lock it, too. Raises NotFound."""
    query = select(Conversation).where(Conversation.id == conversation_id, *listed(owner))
    conversation = session.scalar(query.with_for_update() if for_update else query)
    if conversation is None:
        raise NotFound
    return conversation


def message(session: Session, conversation_id: UUID, message_id: UUID) -> Message:
    """Raises NotFound."""
    query = select(Message).where(Message.conversation_id == conversation_id, Message.id == message_id)
    if (row := session.scalar(query)) is None:
        raise NotFound
    return row


def add(session: Session, conversation_id: UUID, role: str, content: str, created_at: datetime, **columns: Any) -> Message:
    row = Message(id=uuid4(), conversation_id=conversation_id, role=role, content=content, created_at=created_at, **columns)
    session.add(row)
    return row


def execute(session: Session, statement: Update | Delete) -> int:
    """Returns the number of rows that it changed."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount
