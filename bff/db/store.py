"""Stores conversations and their messages. An owner finds only conversations of their own."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from bff.db import branches, pagination, queries
from bff.db.database import Database
from bff.db.models import Conversation, Message, Preference, StoredResponse
from bff.errors import InvalidRequest, NotFound

MAX_DERIVED_TITLE_CHARACTERS: Final = 60
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)

Row = TypeVar("Row")


class Page(NamedTuple, Generic[Row]):
    rows: list[Row]
    next_cursor: str | None


class Parent(NamedTuple):
    """Where a message is added; a root has no parent."""

    id: UUID | None


class ConversationStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self) -> None:
        """Raises UpstreamUnavailable while the database cannot be reached or lacks our tables."""
        self._database.read(
            lambda session: [
                session.scalars(select(table).limit(1)).first() for table in (Conversation, Message, Preference, StoredResponse)
            ]
        )

    def check_writes(self) -> None:
        """Raises UpstreamUnavailable while the database is read-only or full."""
        self._database.check_writes()

    def recent(self, owner: str, limit: int, cursor: str = "") -> Page[Conversation]:
        """Newest activity first. Raises InvalidRequest for an invalid cursor."""
        query = select(Conversation).where(*queries.listed(owner))
        if cursor:
            milliseconds, last = pagination.decode(cursor, int, UUID)
            before = tuple_(Conversation.updated_at, Conversation.id) < (EPOCH + milliseconds * MILLISECOND, last)
            query = query.where(before)
        query = query.order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(limit + 1)
        rows = self._database.read(lambda session: list(session.scalars(query)))
        return _page(rows, limit, lambda last: pagination.encode((last.updated_at - EPOCH) // MILLISECOND, last.id))

    def create(self, owner: str, title: str | None = None, agent_id: str | None = None) -> Conversation:
        def work(session: Session) -> Conversation:
            now = queries.now()
            conversation = Conversation(
                id=uuid4(), owner_id=owner, title=title, agent_id=agent_id, created_at=now, updated_at=now
            )
            session.add(conversation)
            return conversation

        return self._database.write(work)

    def get(self, owner: str, conversation_id: UUID) -> Conversation:
        """Raises NotFound, as all methods do that take a conversation's id."""
        return self._database.read(partial(queries.owned, owner=owner, conversation_id=conversation_id))

    def update(self, owner: str, conversation_id: UUID, changes: Mapping[str, Any]) -> Conversation:
        """`changes`: the new `title`, `agent_id` or `current_message_id`; the newest leaf below that message becomes current.

        Raises InvalidRequest if it is not a message of this conversation.
        """

        def work(session: Session) -> Conversation:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            values = dict(changes)
            if "current_message_id" in values:
                values["current_message_id"] = _leaf(session, conversation_id, values["current_message_id"])
            for name, value in values.items():
                setattr(conversation, name, value)
            if values:
                conversation.updated_at = queries.now()
            return conversation

        return self._database.write(work)

    def delete(self, owner: str, conversation_id: UUID) -> None:
        statement = delete(Conversation).where(Conversation.id == conversation_id, *queries.listed(owner))
        if not self._database.write(lambda session: queries.execute(session, statement)):
            raise NotFound

    def add_message(self, owner: str, conversation_id: UUID, content: str, parent: Parent | None = None) -> Message:
        """Adds a message of the user, by default to the current branch, and makes it the current message.

        The first one becomes the title of a conversation without one. Raises InvalidRequest if `parent` is not a message of it.
        """

        def work(session: Session) -> Message:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            if conversation.title is None and conversation.current_message_id is None:
                conversation.title = title_of(content)
            conversation.updated_at = queries.now()
            parent_id = conversation.current_message_id
            if parent is not None:
                parent_id = parent.id and _message_id(session, conversation_id, parent.id, "parentId")
            message = queries.add(session, conversation_id, "user", content, conversation.updated_at, parent_id=parent_id)
            conversation.current_message_id = message.id
            return message

        return self._database.write(work)

    def messages(self, owner: str, conversation_id: UUID, limit: int, cursor: str = "") -> Page[Message]:
        """Those of the current branch, the root first. Raises InvalidRequest for an invalid cursor.

        If the current branch is another one since, the next page continues the one before.
        """
        after: int | None = pagination.decode(cursor, int)[0] if cursor else None

        def work(session: Session) -> list[Message]:
            end = queries.owned(session, owner, conversation_id).current_message_id
            if after is None:
                return [*branches.first(session, end, limit + 1)]
            last = _message_numbered(session, conversation_id, after)
            rows = branches.after(session, end, last, limit + 1)
            if rows is None:
                rows = branches.after(session, branches.leaf_below(session, last), last, limit + 1)
            return [*(rows or ())]

        return _page(self._database.read(work), limit, lambda last: pagination.encode(last.number))

    def all_messages(self, owner: str, conversation_id: UUID, limit: int, cursor: str = "") -> Page[Message]:
        """Those of all branches, oldest first. Raises InvalidRequest for an invalid cursor."""
        query = select(Message).where(Message.conversation_id == conversation_id)
        if cursor:
            query = query.where(Message.number > pagination.decode(cursor, int)[0])

        def work(session: Session) -> list[Message]:
            queries.owned(session, owner, conversation_id)
            return list(session.scalars(query.order_by(Message.number).limit(limit + 1)))

        return _page(self._database.read(work), limit, lambda last: pagination.encode(last.number))

    def edit_message(self, owner: str, conversation_id: UUID, message_id: UUID, content: str) -> Message:
        """Keeps the original text in `content`."""

        def work(session: Session) -> Message:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            message = queries.message(session, conversation_id, message_id)
            message.edited_content = content
            # Two edits within one millisecond must have different versions.
            now = queries.now()
            message.edited_at = now if message.edited_at is None else max(now, message.edited_at + MILLISECOND)
            conversation.updated_at = now
            return message

        return self._database.write(work)


def _leaf(session: Session, conversation_id: UUID, message_id: UUID | None) -> UUID | None:
    """The newest leaf, of the whole conversation if `message_id` is None."""
    if message_id is None:
        return branches.newest_leaf(session, conversation_id)
    return branches.leaf_below(session, _message_id(session, conversation_id, message_id, "currentMessageId"))


def _message_id(session: Session, conversation_id: UUID, message_id: UUID, field: str) -> UUID:
    try:
        return queries.message(session, conversation_id, message_id).id
    except NotFound:
        raise InvalidRequest(f"{field}: is not a message of this conversation.") from None


def _message_numbered(session: Session, conversation_id: UUID, number: int) -> UUID:
    query = select(Message.id).where(Message.conversation_id == conversation_id, Message.number == number)
    if (message_id := session.scalar(query)) is None:
        raise InvalidRequest("cursor: is not valid.")
    return message_id


def _page(rows: list[Row], limit: int, cursor_after: Callable[[Row], str]) -> Page[Row]:
    """`rows`: up to one row more than `limit`, which shows that there is another page."""
    page = rows[:limit]
    return Page(page, cursor_after(page[-1]) if len(rows) > limit else None)


def title_of(content: str) -> str:
    """The beginning of the message, cut between words."""
    text = " ".join(content.split())
    if len(text) <= MAX_DERIVED_TITLE_CHARACTERS:
        return text
    head = text[: MAX_DERIVED_TITLE_CHARACTERS - 1]
    return (head.rpartition(" ")[0] or head) + "…"
