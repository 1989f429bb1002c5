"""The messages of a conversation are a tree: an edited question is a sibling of the original, a further reply of the first one.

A branch is the path from a root to a message. A conversation has a current branch, which ends at a leaf. Branches can have
thousands of messages, so the database follows them, and only the rows that are needed are fetched.
"""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, exists, false, literal, select, update
from sqlalchemy.orm import Session, aliased

from bff.db import queries
from bff.db.models import Conversation, Message

Condition = Callable[[CTE], ColumnElement[bool]]


def branch(end: UUID | None, stop: Condition = lambda _: false()) -> CTE:
    """The rows `id`, `parent_id`, `number` and `depth` of the branch that ends at `end`; its depth is 0, that of its parent 1.

    `stop`: no row above one that meets it is included.
    """
    last = select(Message.id, Message.parent_id, Message.number, literal(0).label("depth")).where(Message.id == end)
    path = last.cte("branch", recursive=True)
    parent = aliased(Message)
    columns = select(parent.id, parent.parent_id, parent.number, path.c.depth + 1)
    return path.union_all(columns.join(path, parent.id == path.c.parent_id).where(~stop(path)))


def first(session: Session, end: UUID | None, limit: int) -> Sequence[Message]:
    """The first messages of the branch that ends at `end`."""
    return _first(session, branch(end), limit)


def after(session: Session, end: UUID | None, message_id: UUID, limit: int) -> Sequence[Message] | None:
    """Those that follow a message of the branch; None if it is not on the branch."""
    rows = _first(session, branch(end, lambda path: path.c.id == message_id), limit + 1)
    return rows[1:] if rows and rows[0].id == message_id else None


def _first(session: Session, path: CTE, limit: int) -> Sequence[Message]:
    rows = select(path.c.number, path.c.depth).order_by(path.c.depth.desc()).limit(limit).subquery()
    return session.scalars(select(Message).join(rows, rows.c.number == Message.number).order_by(rows.c.depth.desc())).all()


def contains(session: Session, end: UUID | None, message_id: UUID) -> bool:
    """Whether a message is on the branch that ends at `end`."""
    path = branch(end, lambda path: path.c.id == message_id)
    return session.scalar(select(path.c.id).where(path.c.id == message_id)) is not None


def last_question(session: Session, end: UUID | None) -> Message | None:
    """The last message of the user on the branch that ends at `end`."""
    path = branch(end, _is_question)
    query = select(Message).join(path, path.c.number == Message.number).where(Message.role == "user")
    return session.scalar(query.order_by(path.c.depth).limit(1))


def _is_question(path: CTE) -> ColumnElement[bool]:
    row = aliased(Message)
    return select(row.role).where(row.number == path.c.number).scalar_subquery() == "user"


def newest_leaf(session: Session, conversation_id: UUID) -> UUID | None:
    """None if there are no messages."""
    child = aliased(Message)
    query = select(Message.id).where(Message.conversation_id == conversation_id, ~exists().where(child.parent_id == Message.id))
    return session.scalar(query.order_by(Message.number.desc()).limit(1))


def leaf_below(session: Session, message_id: UUID) -> UUID | None:
    """The newest leaf of the subtree of a message; the message itself if it has no children."""
    below = select(Message.id, Message.number).where(Message.id == message_id).cte("below", recursive=True)
    child, leaf_child = aliased(Message), aliased(Message)
    below = below.union_all(select(child.id, child.number).join(below, child.parent_id == below.c.id))
    query = select(below.c.id).where(~exists().where(leaf_child.parent_id == below.c.id))
    return session.scalar(query.order_by(below.c.number.desc()).limit(1))


def add_reply(session: Session, conversation: Conversation, reply: Message) -> None:
    """`reply`: added to the session as a child of its question. Makes it current if the question is on the current branch.

    If the user has continued without a reply, the first one is inserted between the question and what follows. A later
    question that waits for its reply stays the current message.
    """
    others = select(Message.id).where(Message.id != reply.id)
    is_first = session.scalar(others.where(Message.reply_to == reply.reply_to).limit(1)) is None
    following = session.scalars(others.where(Message.parent_id == reply.parent_id)).all()
    if is_first and following:
        session.execute(update(Message).where(queries.among(Message.id, following)).values(parent_id=reply.id))
    elif _is_followed_by(session, reply.parent_id, conversation.current_message_id):
        conversation.current_message_id = reply.id


def _is_followed_by(session: Session, question_id: UUID | None, current_id: UUID | None) -> bool:
    """Whether the current message is this question, or a reply on a branch with this question."""
    if question_id is None or question_id == current_id:
        return question_id is not None
    role = session.scalar(select(Message.role).where(Message.id == current_id))
    return role == "assistant" and contains(session, current_id, question_id)
