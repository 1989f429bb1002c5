"""A conversation's messages are a tree: a question's siblings are its other wordings, a reply's are further replies.

A branch is the path from a root to a message. A conversation has a current branch, which ends at a leaf.
"""

from uuid import UUID

from sqlalchemy import CTE, Select, exists, literal, select, update
from sqlalchemy.orm import Session, aliased

from bff.db.models import Conversation, Message


def branch(end: UUID | None) -> CTE:
    """The rows `id`, `number` and `depth` of the branch that ends at `end`; its depth is 0, that of its parent 1."""
    last = select(Message.id, Message.parent_id, Message.number, literal(0).label("depth")).where(Message.id == end)
    path = last.cte("branch", recursive=True)
    parent = aliased(Message)
    columns = select(parent.id, parent.parent_id, parent.number, path.c.depth + 1)
    return path.union_all(columns.join(path, parent.id == path.c.parent_id))


def numbers(session: Session, end: UUID | None) -> list[int]:
    """The numbers of the branch's messages, the root first."""
    path = branch(end)
    return list(session.scalars(select(path.c.number).order_by(path.c.depth.desc())))


def last_question(session: Session, end: UUID | None) -> Message | None:
    path = branch(end)
    query = select(Message).join(path, path.c.id == Message.id).where(Message.role == "user")
    return session.scalar(query.order_by(path.c.depth).limit(1))


def newest_leaf(session: Session, conversation_id: UUID) -> UUID | None:
    """None if there are no messages."""
    return session.scalar(_newest_leaf(select(Message.id).where(Message.conversation_id == conversation_id)))


def leaf_below(session: Session, message_id: UUID) -> UUID | None:
    """The newest leaf of the subtree of a message; the message itself if it has no children."""
    below = select(Message.id).where(Message.id == message_id).cte("below", recursive=True)
    child = aliased(Message)
    below = below.union_all(select(child.id).join(below, child.parent_id == below.c.id))
    return session.scalar(_newest_leaf(select(Message.id).where(Message.id.in_(select(below.c.id)))))


def _newest_leaf(query: "Select[UUID]") -> "Select[UUID]":
    child = aliased(Message)
    return query.where(~exists().where(child.parent_id == Message.id)).order_by(Message.number.desc()).limit(1)


def add_reply(session: Session, conversation: Conversation, question: Message, reply: Message) -> None:
    """Makes `reply` a child of `question`, and the current message if the question is on the current branch.

    If the user went on without waiting for the question's first reply, the reply comes between the question and what follows.
    """
    children = list(session.scalars(select(Message).where(Message.parent_id == question.id)))
    is_current = question.number in numbers(session, conversation.current_message_id)
    reply.parent_id = question.id
    session.flush()
    if children and all(child.role == "user" for child in children):
        ids = [child.id for child in children]
        session.execute(update(Message).where(Message.id.in_(ids)).values(parent_id=reply.id))
    elif is_current:
        conversation.current_message_id = reply.id
