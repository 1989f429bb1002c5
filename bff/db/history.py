"""The history that an agent receives: the newest turns that fit, in their edited form, each question with its newest reply."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bff.db import branches, queries
from bff.db.models import Message
from bff.upstream.messages import ChatMessage

MAX_TURNS: Final = 500


def of_direct_chat(session: Session, conversation_id: UUID, characters: int) -> list[ChatMessage]:
    """All turns of a hidden conversation, with at most `characters` characters."""
    query = select(Message.id, Message.number, func.length(queries.EFFECTIVE))
    query = query.where(Message.conversation_id == conversation_id, Message.role == "user")
    questions = session.execute(query.order_by(Message.number.desc()).limit(MAX_TURNS)).all()
    replies = _newest_replies(session, [row[0] for row in questions])
    turns = _fitting(((position, size, *replies.get(id_, (0, 0))) for id_, position, size in questions), characters)
    return _messages(session, [*turns])


def of_branch(session: Session, end: UUID | None, characters: int) -> list[ChatMessage]:
    """The turns of the branch that ends at the message `end`, with at most `characters` characters."""
    path = branches.branch(end, lambda path: path.c.depth >= 2 * MAX_TURNS - 1)
    columns = select(Message.id, Message.number, func.length(queries.EFFECTIVE), Message.reply_to)
    query = columns.join(path, path.c.number == Message.number).order_by(path.c.depth)
    turns = _fitting(_turns(session.execute(query)), characters)
    return _messages(session, [*turns])


def _turns(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[int, int, int, int]]:
    """As for `_fitting`, from id, number and length of messages, and the id of the question if they are replies."""
    replies: dict[UUID, tuple[int, int]] = {}
    for id_, number, size, reply_to in rows:
        if reply_to is None:
            yield number, size, *replies.get(id_, (0, 0))
        else:
            replies.setdefault(reply_to, (number, size))


def _newest_replies(session: Session, questions: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """By question id: the number of its newest reply, and that reply's length in characters."""
    newest = select(func.max(Message.number)).where(queries.among(Message.reply_to, questions)).group_by(Message.reply_to)
    query = select(Message.reply_to, Message.number, func.length(queries.EFFECTIVE)).where(Message.number.in_(newest))
    return {reply_to: (number, size) for reply_to, number, size in session.execute(query) if reply_to is not None}


def _fitting(sizes: Iterable[tuple[int, int, int, int]], characters: int) -> Iterable[tuple[int, int]]:
    """`sizes`: number and length of question and reply, newest turn first; 0, 0 without a reply. Yields both numbers."""
    for number, size, reply, reply_size in sizes:
        characters -= size + reply_size
        if characters < 0:
            return
        yield number, reply


def _messages(session: Session, turns: Sequence[tuple[int, int]]) -> list[ChatMessage]:
    """`turns`: the numbers of question and reply, newest turn first. The messages are in the order of the conversation."""
    numbers = [number for turn in reversed(turns) for number in turn if number]
    query = select(Message.number, Message.role, queries.EFFECTIVE).where(queries.among(Message.number, numbers))
    texts = {
        number: ChatMessage("user" if role == "user" else "assistant", text) for number, role, text in session.execute(query)
    }
    return [texts[number] for number in numbers]
