"""Direct chat with the bundled engine: one hidden conversation per user, and the user's preferences."""

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

MAX_STORED_CHARACTERS: Final = 200_000
"""Characters of a question or a reply that are stored."""
MAX_PAGE_CHARACTERS: Final = 600_000
"""Of a page of turns. A longer page has each text cut to its share, as EngineClient limits the size of a response."""


class Turn(NamedTuple):
    reply_id: UUID
    question: str
    reply: str
    created_at: str
    spoken: bool


class DirectTask(NamedTuple):
    reply: Message | None
    """The reply if it is already stored."""
    history: list[ChatMessage]
    """The messages up to and including the question; [] if there is a reply."""
    language: str
    """Two letters; "" if the user has chosen none."""


class DirectChat:
    def __init__(self, database: Database, history_characters: int) -> None:
        """`history_characters`: maximum length of the history for an agent, the question included."""
        self._database = database
        self._history_characters = history_characters

    def task(self, owner: str, turn_id: str, question: str) -> DirectTask:
        def work(session: Session) -> DirectTask:
            conversation_id = _hidden_id(owner)
            language = session.scalar(_language_of(owner)) or ""
            if (reply := session.scalar(_reply_of(conversation_id, turn_id))) is not None:
                return DirectTask(reply, [], language)
            earlier = history.of_direct_chat(session, conversation_id, self._history_characters - len(question))
            return DirectTask(None, [*earlier, ChatMessage("user", question)], language)

        return self._database.read(work)

    def store(self, owner: str, turn_id: str, question: str, reply: str, *, spoken: bool, truncated: bool = False) -> Message:
        """Stores question and reply, and returns the reply; the stored one if there is already one for `turn_id`.

        `spoken`, `truncated`: see `Message`.
        """

        def work(session: Session) -> Message:
            conversation_id = _lock_hidden(session, owner)
            if (stored := session.scalar(_reply_of(conversation_id, turn_id))) is not None:
                return stored
            now = queries.now()
            user_message = queries.add(session, conversation_id, "user", question[:MAX_STORED_CHARACTERS], now, spoken=spoken)
            session.flush()
            columns = {"reply_to": user_message.id, "turn_id": turn_id, "spoken": spoken, "truncated": truncated}
            return queries.add(session, conversation_id, "assistant", reply[:MAX_STORED_CHARACTERS], now, **columns)

        return self._database.write(work)

    def turns(self, owner: str, limit: int, offset: int) -> tuple[list[Turn], int]:
        """A page of turns, oldest first, without the first `offset` ones; and the number of all turns."""
        question = aliased(Message)
        conditions = (Message.conversation_id == _hidden_id(owner), Message.role == "assistant")

        def work(session: Session) -> tuple[list[Turn], int]:
            total = session.scalar(select(func.count()).select_from(Message).where(*conditions)) or 0
            columns = select(Message.id, question.content, Message.content, Message.created_at, Message.spoken)
            page = columns.join(question, question.id == Message.reply_to).where(*conditions).order_by(Message.number)
            turns = [
                Turn(reply_id, question_text, reply, queries.as_text(created_at), spoken)
                for reply_id, question_text, reply, created_at, spoken in session.execute(page.limit(limit).offset(offset))
            ]
            return _shorten_texts(turns), total

        return self._database.read(work)

    def spoken_reply(self, owner: str, reply_id: UUID) -> str | None:
        """The text of a reply to a voice message; None if there is no such reply."""
        query = select(Message.content).where(Message.conversation_id == _hidden_id(owner), Message.id == reply_id)
        text: str | None = self._database.read(lambda session: session.scalar(query.where(Message.spoken)))
        return text

    def language(self, owner: str) -> str:
        """Two letters; "" if the user has chosen none."""
        return self._database.read(lambda session: session.scalar(_language_of(owner))) or ""

    def set_language(self, owner: str, language: str) -> None:
        def work(session: Session) -> None:
            session.merge(Preference(owner_id=owner, response_language=language))

        self._database.write(work)


def _hidden_id(owner: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"chat-bff:direct:{owner}")


def _lock_hidden(session: Session, owner: str) -> UUID:
    """Creates the user's hidden conversation if it is missing, and locks it until the transaction ends. Returns its id."""
    conversation_id, now = _hidden_id(owner), queries.now()
    values = {"id": conversation_id, "owner_id": owner, "hidden": True, "created_at": now, "updated_at": now}
    session.execute(_insert(session)(Conversation).values(values).on_conflict_do_nothing())
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


def _shorten_texts(turns: list[Turn]) -> list[Turn]:
    if sum(len(turn.question) + len(turn.reply) for turn in turns) <= MAX_PAGE_CHARACTERS:
        return turns
    share = MAX_PAGE_CHARACTERS // (2 * len(turns))
    return [turn._replace(question=_shorten(turn.question, share), reply=_shorten(turn.reply, share)) for turn in turns]


def _shorten(text: str, max_characters: int) -> str:
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"
