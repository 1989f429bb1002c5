"""What a transaction asks and does: the sentences that store and claims are made of."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, Delete, Update, func, select
from sqlalchemy.orm import Session

from bff.agents import HISTORY_CHARACTERS
from bff.conversations.models import Conversation, Message
from bff.errors import NotFound

HISTORY_MOST: Final = 500
"""Messages an agent is given: the newest."""


class Heard(NamedTuple):
    message: Message
    effective_content: str
    """What it was edited to, else what was said."""


def now() -> datetime:
    """To the millisecond, as it is told."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def owned(session: Session, owner: str, conversation_id: UUID, *, to_write: bool = False) -> Conversation:
    """`to_write`: nobody else writes to it, or to its messages, before the transaction has ended. Raises NotFound."""
    found = select(Conversation).where(Conversation.id == conversation_id, Conversation.owner_id == owner)
    conversation = session.scalar(found.with_for_update() if to_write else found)
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


def history(session: Session, conversation_id: UUID, up_to: int) -> list[Heard]:
    """The newest messages up to number `up_to`, within HISTORY_MOST and HISTORY_CHARACTERS, oldest first."""
    effective = func.coalesce(Message.edited_content, Message.content).label("effective_content")
    mine = (Message.conversation_id == conversation_id, Message.number <= up_to)
    sizes = select(Message.number, func.length(effective)).where(*mine).order_by(Message.number.desc()).limit(HISTORY_MOST)
    first = _first((row[0], row[1]) for row in session.execute(sizes))
    found = select(Message, effective).where(*mine, Message.number >= first).order_by(Message.number)
    return [Heard(*row) for row in session.execute(found)]


def _first(newest: Iterable[tuple[int, int]]) -> int:
    """The number of the oldest message that still fits; the newest always does."""
    first, characters = 0, 0
    for number, size in newest:
        characters += size
        if first and characters > HISTORY_CHARACTERS:
            break
        first = number
    return first


def add(session: Session, conversation_id: UUID, role: str, content: str, moment: datetime, **more: Any) -> Message:
    row = Message(id=uuid4(), conversation_id=conversation_id, role=role, content=content, created_at=moment, **more)
    session.add(row)
    return row


def change(session: Session, what: Update | Delete) -> int:
    """How many rows it changed."""
    done = session.execute(what.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", done).rowcount
