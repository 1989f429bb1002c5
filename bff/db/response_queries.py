"""Queries of the store of responses. Each runs inside a transaction of its caller."""

from collections.abc import Sequence
from itertools import accumulate, dropwhile, pairwise
from typing import Final, cast
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bff.db import branches, queries
from bff.db.models import Conversation, Message, StoredResponse
from bff.errors import InvalidRequest, NotFound
from bff.upstream.messages import ChatMessage, Role
from bff.upstream.output import OutputBlock

MAX_MESSAGES: Final = 1000
"""Of earlier responses, for an agent."""
PART_SEPARATOR: Final = "\n"


class PreviousResponseNotFound(InvalidRequest):
    code = "previous_response_not_found"


def owned(session: Session, owner: str, response_id: UUID, *, for_update: bool = False) -> StoredResponse:
    """`for_update`: locks its conversation until the transaction ends, as all writers of its messages do."""
    query = select(StoredResponse).where(StoredResponse.id == response_id, StoredResponse.owner_id == owner)
    row = session.scalar(query)
    if row is not None and for_update:
        session.execute(select(Conversation.id).where(Conversation.id == row.conversation_id).with_for_update())
        row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise NotFound("There is no such response.")
    return row


def previous(session: Session, owner: str, response_id: UUID, *, for_update: bool = False) -> StoredResponse:
    """A response that another one can follow."""
    try:
        row = owned(session, owner, response_id, for_update=for_update)
    except NotFound:
        raise PreviousResponseNotFound("The previous response was not found.", param="previous_response_id") from None
    if row.reply_id is None:
        raise InvalidRequest("previous_response_id: this response has no output.", param="previous_response_id")
    return row


def inputs(session: Session, row: StoredResponse) -> list[Message]:
    """The messages of its input, in their order."""
    path = branches.branch(row.question_id, lambda path: path.c.depth >= len(row.inputs) - 1)
    query = select(Message).join(path, path.c.id == Message.id).order_by(path.c.depth)
    return [*session.scalars(query)][::-1]


def blocks(session: Session, row: StoredResponse) -> list[OutputBlock]:
    """The output."""
    text = session.scalar(select(Message.content).where(Message.id == row.reply_id)) or ""
    found = []
    for kind, value in row.blocks:
        if kind == "text":
            found.append(OutputBlock(kind, text[:value]))
            text = text[value:]
        else:
            found.append(OutputBlock(kind, value))
    return found


def history(session: Session, end: UUID | None, characters: int) -> list[ChatMessage]:
    """The newest messages of the branch that ends at `end`, with at most `characters` characters; never a reply first."""
    path = branches.branch(end, lambda path: path.c.depth >= MAX_MESSAGES - 1)
    query = select(Message.number, func.length(Message.content)).join(path, path.c.id == Message.id)
    numbers = []
    for number, size in session.execute(query.order_by(path.c.depth)):
        characters -= size
        if characters < 0:
            break
        numbers.append(number)
    contents = {
        number: chat_message(role, content)
        for number, role, content in session.execute(
            select(Message.number, Message.role, Message.content).where(queries.among(Message.number, numbers))
        )
    }
    messages = [contents[number] for number in reversed(numbers)]
    return [*dropwhile(lambda message: message.role == "assistant", messages)]


def chat_message(role: str, content: str) -> ChatMessage:
    return ChatMessage(cast("Role", role), content)


def split(text: str, lengths: Sequence[int]) -> list[str]:
    """The parts of an input item's text."""
    starts = accumulate((length + len(PART_SEPARATOR) for length in lengths), initial=0)
    return [text[start : end - len(PART_SEPARATOR)] for start, end in pairwise(starts)]
