"""Stores responses of /v1/responses: input and output as messages of hidden conversations, each chain a branch."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import delete, exists, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bff.db import queries, response_queries
from bff.db.database import Database
from bff.db.models import Conversation, Message, StoredResponse
from bff.errors import IdempotencyConflict
from bff.upstream.messages import ChatMessage
from bff.upstream.output import OutputBlock

UNFINISHED: Final = "queued"
"""The status of a response that waits or runs; the queue knows which of them."""


class InputItem(NamedTuple):
    role: str
    parts: list[str]
    id: UUID | None = None
    """Of its message; None if it is not stored yet."""

    @property
    def text(self) -> str:
        return response_queries.PART_SEPARATOR.join(self.parts)


class NewResponse(NamedTuple):
    """See `StoredResponse`."""

    id: UUID
    message_id: str
    agent_id: str
    digest: str
    fields: dict[str, Any]
    options: dict[str, Any]
    items: Sequence[InputItem]
    previous_id: UUID | None


class ResponseTask(NamedTuple):
    """What an agent needs to produce a response."""

    row: StoredResponse
    blocks: list[OutputBlock]
    """The output if it is stored already."""
    history: list[ChatMessage]
    """The instructions, and the messages up to and including the input; [] if there is an output."""


class ResponseStore:
    """An owner finds only responses of their own: all methods raise NotFound for others."""

    def __init__(self, database: Database, history_characters: int) -> None:
        """`history_characters`: maximum length of the history for an agent. The input is always part of it."""
        self._database = database
        self._history_characters = history_characters

    def create(self, owner: str, new: NewResponse) -> tuple[StoredResponse, bool]:
        """Stores the input. Returns the row, and whether it is new.

        Raises IdempotencyConflict if a response to another request has its id, PreviousResponseNotFound, and InvalidRequest
        if the previous response has no output.
        """

        def work(session: Session) -> tuple[StoredResponse, bool]:
            if (row := session.get(StoredResponse, new.id)) is None:
                try:
                    with session.begin_nested():
                        return _create(session, owner, new), True
                except IntegrityError:  # A request with the same key was faster.
                    row = session.get_one(StoredResponse, new.id)
            if row.digest != new.digest:
                raise IdempotencyConflict
            return row, False

        return self._database.write(work)

    def get(self, owner: str, response_id: UUID) -> StoredResponse:
        return self._database.read(lambda session: response_queries.owned(session, owner, response_id))

    def blocks(self, row: StoredResponse) -> list[OutputBlock]:
        """The output."""
        return self._database.read(lambda session: response_queries.blocks(session, row))

    def input_items(self, owner: str, response_id: UUID) -> list[InputItem]:
        """In their order."""

        def work(session: Session) -> list[InputItem]:
            row = response_queries.owned(session, owner, response_id)
            messages = response_queries.inputs(session, row)
            return [
                InputItem(message.role, response_queries.split(message.content, lengths), message.id)
                for message, lengths in zip(messages, row.inputs, strict=True)
            ]

        return self._database.read(work)

    def history(self, owner: str, previous_id: UUID, characters: int) -> list[ChatMessage]:
        """The messages up to and including a response's output, for an agent. `characters`: those of the next input.

        Raises PreviousResponseNotFound, and InvalidRequest if it has no output.
        """

        def work(session: Session) -> list[ChatMessage]:
            reply_id = response_queries.previous(session, owner, previous_id).reply_id
            return response_queries.history(session, reply_id, self._history_characters - characters)

        return self._database.read(work)

    def task(self, owner: str, response_id: UUID) -> ResponseTask:
        def work(session: Session) -> ResponseTask:
            row = response_queries.owned(session, owner, response_id)
            if row.reply_id is not None:
                return ResponseTask(row, response_queries.blocks(session, row), [])
            inputs = response_queries.inputs(session, row)
            size = sum(len(message.content) for message in inputs)
            instructions = row.fields.get("instructions")
            first = [ChatMessage("system", instructions)] if instructions else []
            earlier = response_queries.history(session, inputs[0].parent_id, self._history_characters - size)
            last = [response_queries.chat_message(message.role, message.content) for message in inputs]
            return ResponseTask(row, [], [*first, *earlier, *last])

        return self._database.read(work)

    def finish(
        self, owner: str, response_id: UUID, blocks: Sequence[OutputBlock], usage: Mapping[str, int] | None, *, truncated: bool
    ) -> StoredResponse:
        """Stores the output. Returns the row, unchanged if it has an output already."""

        def work(session: Session) -> StoredResponse:
            row = response_queries.owned(session, owner, response_id, for_update=True)
            if row.reply_id is not None:
                return row
            now = queries.now()
            text = "".join(block.text for block in blocks if block.kind == "text")
            columns = {"parent_id": row.question_id, "truncated": truncated}
            row.reply_id = queries.add(session, row.conversation_id, "assistant", text, now, **columns).id
            row.blocks = [[block.kind, len(block.text) if block.kind == "text" else block.text] for block in blocks]
            row.usage = dict(usage) if usage else None
            row.status, row.error_code = ("incomplete" if truncated else "completed"), ""
            row.completed_at = None if truncated else now
            return row

        return self._database.write(work)

    def end(self, owner: str, response_id: UUID, status: str, error_code: str = "") -> StoredResponse:
        """Records how a response without output ended. Returns the row, unchanged if it had ended already."""

        def work(session: Session) -> StoredResponse:
            row = response_queries.owned(session, owner, response_id, for_update=True)
            if row.status == UNFINISHED:
                row.status, row.error_code = status, error_code
            return row

        return self._database.write(work)

    def delete(self, owner: str, response_id: UUID) -> None:
        """Deletes input and output as well. Later responses of the chain stay, without this turn in their history."""

        def work(session: Session) -> None:
            row = response_queries.owned(session, owner, response_id, for_update=True)
            inputs = response_queries.inputs(session, row)
            ids = [*(message.id for message in inputs), *([row.reply_id] if row.reply_id else [])]
            children = update(Message).where(queries.among(Message.parent_id, ids), ~queries.among(Message.id, ids))
            queries.execute(session, children.values(parent_id=inputs[0].parent_id))
            queries.execute(session, delete(Message).where(queries.among(Message.id, ids)))
            queries.execute(session, delete(StoredResponse).where(StoredResponse.id == row.id))
            others = exists().where(StoredResponse.conversation_id == row.conversation_id)
            queries.execute(session, delete(Conversation).where(Conversation.id == row.conversation_id, ~others))

        self._database.write(work)


def _create(session: Session, owner: str, new: NewResponse) -> StoredResponse:
    now = queries.now()
    previous = response_queries.previous(session, owner, new.previous_id, for_update=True) if new.previous_id else None
    conversation_id = previous.conversation_id if previous else _new_conversation(session, owner, new.agent_id, now)
    parent_id = previous.reply_id if previous else None
    for item in new.items:
        parent_id = queries.add(session, conversation_id, item.role, item.text, now, parent_id=parent_id).id
    row = StoredResponse(
        id=new.id,
        owner_id=owner,
        conversation_id=conversation_id,
        message_id=new.message_id,
        agent_id=new.agent_id,
        digest=new.digest,
        fields=new.fields,
        options=new.options,
        inputs=[[len(part) for part in item.parts] for item in new.items],
        question_id=parent_id,
        status=UNFINISHED,
        error_code="",
        blocks=[],
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row


def _new_conversation(session: Session, owner: str, agent_id: str, now: datetime) -> UUID:
    conversation = Conversation(id=uuid4(), owner_id=owner, agent_id=agent_id, hidden=True, created_at=now, updated_at=now)
    session.add(conversation)
    session.flush()
    return conversation.id
