"""Conversations and messages, kept. Every question is an owner's; another's is not found."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from bff.db import pagination, queries
from bff.db.database import Database
from bff.db.models import Conversation, Message, Preference
from bff.errors import NotFound

TITLE_MADE_MOST: Final = 60
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)

Row = TypeVar("Row")


class Page(NamedTuple, Generic[Row]):
    rows: list[Row]
    next_cursor: str | None


class ConversationStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self) -> None:
        """Raises UpstreamUnavailable while there is no database, or none that has our tables."""
        self._database.read(
            lambda session: [session.scalars(select(table).limit(1)).first() for table in (Conversation, Message, Preference)]
        )

    def check_writes(self) -> None:
        """Raises UpstreamUnavailable while the database takes no writes."""
        self._database.check_writes()

    def recent(self, owner: str, limit: int, cursor: str = "") -> Page[Conversation]:
        """Newest activity first. Raises InvalidRequest for a cursor that is none."""
        found = select(Conversation).where(*queries.listed(owner))
        if cursor:
            milliseconds, last = pagination.decode(cursor, int, UUID)
            before = tuple_(Conversation.updated_at, Conversation.id) < (EPOCH + milliseconds * MILLISECOND, last)
            found = found.where(before)
        found = found.order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(limit + 1)
        listed = self._database.read(lambda session: list(session.scalars(found)))
        return _page(listed, limit, lambda last: pagination.encode((last.updated_at - EPOCH) // MILLISECOND, last.id))

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
        """Raises NotFound, as everything here does that is about one conversation."""
        return self._database.read(partial(queries.owned, owner=owner, conversation_id=conversation_id))

    def update(self, owner: str, conversation_id: UUID, changes: Mapping[str, str | None]) -> Conversation:
        """Only what is in `changes`: title, agent_id."""

        def work(session: Session) -> Conversation:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            for name, value in changes.items():
                setattr(conversation, name, value)
            if changes:
                conversation.updated_at = queries.now()
            return conversation

        return self._database.write(work)

    def delete(self, owner: str, conversation_id: UUID) -> None:
        gone = delete(Conversation).where(Conversation.id == conversation_id, *queries.listed(owner))
        if not self._database.write(lambda session: queries.change(session, gone)):
            raise NotFound

    def add_message(self, owner: str, conversation_id: UUID, content: str) -> Message:
        """A user's. The first one gives the conversation its title, where it has none."""

        def work(session: Session) -> Message:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            if conversation.title is None and queries.last(session, conversation_id) is None:
                conversation.title = title_of(content)
            conversation.updated_at = queries.now()
            return queries.add(session, conversation_id, "user", content, conversation.updated_at)

        return self._database.write(work)

    def messages(self, owner: str, conversation_id: UUID, limit: int, cursor: str = "") -> Page[Message]:
        """Oldest first. Raises InvalidRequest for a cursor that is none."""
        found = select(Message).where(Message.conversation_id == conversation_id)
        if cursor:
            found = found.where(Message.number > pagination.decode(cursor, int)[0])

        def work(session: Session) -> list[Message]:
            queries.owned(session, owner, conversation_id)
            return list(session.scalars(found.order_by(Message.number).limit(limit + 1)))

        return _page(self._database.read(work), limit, lambda last: pagination.encode(last.number))

    def edit_message(self, owner: str, conversation_id: UUID, message_id: UUID, content: str) -> Message:
        """Keeps what was said beside it."""

        def work(session: Session) -> Message:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            message = queries.message(session, conversation_id, message_id)
            message.edited_content = content
            # Two edits in one millisecond are two versions all the same.
            now = queries.now()
            message.edited_at = now if message.edited_at is None else max(now, message.edited_at + MILLISECOND)
            conversation.updated_at = now
            return message

        return self._database.write(work)


def _page(found: list[Row], limit: int, cursor_after: Callable[[Row], str]) -> Page[Row]:
    """`found` holds one more than the page, where there is more."""
    page = found[:limit]
    return Page(page, cursor_after(page[-1]) if len(found) > limit else None)


def title_of(content: str) -> str:
    """The message's beginning, cut between words."""
    text = " ".join(content.split())
    if len(text) <= TITLE_MADE_MOST:
        return text
    head = text[: TITLE_MADE_MOST - 1]
    return (head.rpartition(" ")[0] or head) + "…"
