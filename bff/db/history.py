"""What an agent is told of a conversation: its newest turns that fit, as edited, each question with its newest reply."""

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
    """The turns whose questions came before the message `number`, all of them for None; `characters` at most."""
    found = select(Message.id, Message.number, func.length(queries.EFFECTIVE))
    found = found.where(Message.conversation_id == conversation_id, Message.role == "user")
    if number is not None:
        found = found.where(Message.number < number)
    questions = session.execute(found.order_by(Message.number.desc()).limit(MAX_TURNS)).all()
    replies = _newest_replies(session, [row[0] for row in questions])
    sizes = ((at, size, *replies.get(question, (0, 0))) for question, at, size in questions)
    turns = list(_fitting(sizes, characters))
    return _told(session, [at for turn in reversed(turns) for at in turn if at])


def _newest_replies(session: Session, questions: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """By question: the number of its newest reply, and how many characters that has."""
    newest = select(func.max(Message.number)).where(Message.reply_to.in_(questions)).group_by(Message.reply_to)
    found = select(Message.reply_to, Message.number, func.length(queries.EFFECTIVE)).where(Message.number.in_(newest))
    return {reply_to: (number, size) for reply_to, number, size in session.execute(found) if reply_to is not None}


def _fitting(sizes: Iterable[tuple[int, int, int, int]], characters: int) -> Iterable[tuple[int, int]]:
    """Of turns, newest first, the numbers of question and reply, as long as they fit."""
    for number, size, reply, reply_size in sizes:
        characters -= size + reply_size
        if characters < 0:
            return
        yield number, reply


def _told(session: Session, numbers: Sequence[int]) -> list[ChatMessage]:
    """These messages, in this order."""
    found = select(Message.number, Message.role, queries.EFFECTIVE).where(Message.number.in_(numbers))
    texts = {
        number: ChatMessage("user" if role == "user" else "assistant", text) for number, role, text in session.execute(found)
    }
    return [texts[number] for number in numbers]
