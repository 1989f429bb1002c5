"""The history that an agent receives: the newest turns that fit, in their edited form, each question with its newest reply."""

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bff.db import queries
from bff.db.models import Message
from bff.upstream.messages import ChatMessage

MAX_TURNS: Final = 500


def before(session: Session, conversation_id: UUID, number: int | None, characters: int) -> list[ChatMessage]:
    """The turns whose question precedes the message `number` (None: all turns), with at most `characters` characters."""
    query = select(Message.id, Message.number, func.length(queries.EFFECTIVE))
    query = query.where(Message.conversation_id == conversation_id, Message.role == "user")
    if number is not None:
        query = query.where(Message.number < number)
    questions = session.execute(query.order_by(Message.number.desc()).limit(MAX_TURNS)).all()
    replies = _newest_replies(session, [row[0] for row in questions])
    sizes = ((position, size, *replies.get(question, (0, 0))) for question, position, size in questions)
    turns = list(_fitting(sizes, characters))
    return _messages(session, [position for turn in reversed(turns) for position in turn if position])


def _newest_replies(session: Session, questions: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """By question id: the number of its newest reply, and that reply's length in characters."""
    newest = select(func.max(Message.number)).where(Message.reply_to.in_(questions)).group_by(Message.reply_to)
    query = select(Message.reply_to, Message.number, func.length(queries.EFFECTIVE)).where(Message.number.in_(newest))
    return {reply_to: (number, size) for reply_to, number, size in session.execute(query) if reply_to is not None}


def _fitting(sizes: Iterable[tuple[int, int, int, int]], characters: int) -> Iterable[tuple[int, int]]:
    """`sizes`: number and length of question and reply, newest turn first; 0, 0 without a reply. Yields both numbers."""
    for number, size, reply, reply_size in sizes:
        characters -= size + reply_size
        if characters < 0:
            return
        yield number, reply


def _messages(session: Session, numbers: Sequence[int]) -> list[ChatMessage]:
    """The messages with these numbers, in this order."""
    query = select(Message.number, Message.role, queries.EFFECTIVE).where(Message.number.in_(numbers))
    texts = {
        number: ChatMessage("user" if role == "user" else "assistant", text) for number, role, text in session.execute(query)
    }
    return [texts[number] for number in numbers]
