"""The direct chat that the bundled engine answers: one hidden conversation a user, and what the user prefers."""

from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import Select, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from bff.db import history, queries
from bff.db.database import Database
from bff.db.models import Conversation, Message, Preference
from bff.upstream.messages import ChatMessage

MAX_STORED: Final = 200_000
"""Characters of a question, and of a reply."""
PAGE_CHARACTERS: Final = 600_000
"""Of a page of turns. Where they are more, each text is cut to its share: a page stays below what the BFF reads."""


class Turn(NamedTuple):
    reply_id: UUID
    question: str
    reply: str
    created_at: str
    spoken: bool


class DirectTask(NamedTuple):
    reply: Message | None
    """The reply, where it is stored already."""
    history: list[ChatMessage]
    """Up to the question, which is last."""
    language: str
    """Two letters; "" when the user has chosen none."""


class DirectChat:
    def __init__(self, database: Database, history_characters: int) -> None:
        """`history_characters`: at most, to an agent, beside the question."""
        self._database = database
        self._characters = history_characters

    def task(self, owner: str, turn_id: str, question: str) -> DirectTask:
        def work(session: Session) -> DirectTask:
            conversation_id = _hidden_id(owner)
            language = session.scalar(_language_of(owner)) or ""
            if (reply := session.scalar(_reply_of(conversation_id, turn_id))) is not None:
                return DirectTask(reply, [], language)
            told = history.before(session, conversation_id, None, self._characters - len(question))
            return DirectTask(None, [*told, ChatMessage("user", question)], language)

        return self._database.read(work)

    def store(self, owner: str, turn_id: str, question: str, reply: str, *, spoken: bool) -> Message:
        """The reply, with its question; the one that is stored under `turn_id` already where there is one."""

        def work(session: Session) -> Message:
            conversation_id = _hidden(session, owner)
            if (stored := session.scalar(_reply_of(conversation_id, turn_id))) is not None:
                return stored
            now = queries.now()
            asked = queries.add(session, conversation_id, "user", question[:MAX_STORED], now, spoken=spoken)
            about = {"reply_to": asked.id, "turn_id": turn_id, "spoken": spoken}
            session.flush()
            return queries.add(session, conversation_id, "assistant", reply[:MAX_STORED], now, **about)

        return self._database.write(work)

    def turns(self, owner: str, limit: int, offset: int) -> tuple[list[Turn], int]:
        """A page, oldest first, after the first `offset` ones; and how many there are."""
        question = aliased(Message)
        mine = (Message.conversation_id == _hidden_id(owner), Message.role == "assistant")

        def work(session: Session) -> tuple[list[Turn], int]:
            total = session.scalar(select(func.count()).select_from(Message).where(*mine)) or 0
            found = select(Message.id, question.content, Message.content, Message.created_at, Message.spoken)
            page = found.join(question, question.id == Message.reply_to).where(*mine).order_by(Message.number)
            turns = [
                Turn(reply_id, asked, reply, queries.as_text(created_at), spoken)
                for reply_id, asked, reply, created_at, spoken in session.execute(page.limit(limit).offset(offset))
            ]
            return _cut(turns), total

        return self._database.read(work)

    def spoken_reply(self, owner: str, reply_id: UUID) -> str | None:
        """The text of a reply to a spoken question."""
        found = select(Message.content).where(Message.conversation_id == _hidden_id(owner), Message.id == reply_id)
        text: str | None = self._database.read(lambda session: session.scalar(found.where(Message.spoken)))
        return text

    def language(self, owner: str) -> str:
        """Two letters; "" when none was chosen."""
        return self._database.read(lambda session: session.scalar(_language_of(owner))) or ""

    def choose_language(self, owner: str, language: str) -> None:
        def work(session: Session) -> None:
            session.merge(Preference(owner_id=owner, response_language=language))

        self._database.write(work)


def _hidden_id(owner: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"chat-bff:direct:{owner}")


def _hidden(session: Session, owner: str) -> UUID:
    """The id of the user's hidden conversation, which is there then; nobody else writes to it before the transaction ends."""
    conversation_id, now = _hidden_id(owner), queries.now()
    values = {"id": conversation_id, "owner_id": owner, "hidden": True, "created_at": now, "updated_at": now}
    insert = _insert(session)(Conversation).values(values).on_conflict_do_nothing()
    session.execute(insert)
    conversation = session.scalar(select(Conversation).where(Conversation.id == conversation_id).with_for_update())
    assert conversation is not None
    conversation.updated_at = now
    return conversation_id


def _insert(session: Session) -> Callable[[type[Conversation]], "sqlite.Insert | postgresql.Insert"]:
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert


def _language_of(owner: str) -> "Select[str]":
    return select(Preference.response_language).where(Preference.owner_id == owner)


def _reply_of(conversation_id: UUID, turn_id: str) -> "Select[Message]":
    return select(Message).where(Message.conversation_id == conversation_id, Message.turn_id == turn_id)


def _cut(turns: list[Turn]) -> list[Turn]:
    if sum(len(turn.question) + len(turn.reply) for turn in turns) <= PAGE_CHARACTERS:
        return turns
    share = PAGE_CHARACTERS // (2 * len(turns))
    return [turn._replace(question=_shortened(turn.question, share), reply=_shortened(turn.reply, share)) for turn in turns]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
