"""Replies to a conversation's questions: what is asked, what an agent is told of the conversation, and the reply, stored once.

A reply answers one version of a question, the text it was last edited to: a question that was edited after its reply counts as
unanswered. Of one version there is one reply, and one more for each text that `regenerate` named.
"""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from bff.db import history, queries
from bff.db.database import Database
from bff.db.models import Message
from bff.errors import InvalidRequest
from bff.upstream.messages import ChatMessage


class Question(NamedTuple):
    id: UUID
    version: int
    """Milliseconds since 1970 of its last edit, 0 where there was none."""
    agent_id: str | None
    """The conversation's own agent."""
    answered: bool
    """Whether there is a reply to this version, or one for this `regenerate`."""


class Task(NamedTuple):
    """What whoever writes a reply needs."""

    version: int
    reply: Message | None
    """The reply, where it is stored already."""
    history: list[ChatMessage]
    """Up to the question, which is last."""


class Replies:
    def __init__(self, database: Database, history_characters: int) -> None:
        """`history_characters`: of a conversation, at most, to an agent; a question is told whatever its length."""
        self._database = database
        self._characters = history_characters

    def question(self, owner: str, conversation_id: UUID, message_id: UUID | None, regenerate: str) -> Question:
        """The message `message_id`, or the user's last one. Raises NotFound, and InvalidRequest where there is no question."""

        def work(session: Session) -> Question:
            conversation = queries.owned(session, owner, conversation_id)
            asked = _asked(session, conversation_id, message_id)
            answered = session.scalar(_replies_to(asked, regenerate).limit(1)) is not None
            return Question(asked.id, asked.version, conversation.agent_id, answered)

        return self._database.read(work)

    def task(self, owner: str, conversation_id: UUID, question_id: UUID, regenerate: str) -> Task:
        """Raises NotFound, InvalidRequest."""

        def work(session: Session) -> Task:
            queries.owned(session, owner, conversation_id)
            asked = _asked(session, conversation_id, question_id)
            reply = session.scalar(_replies_to(asked, regenerate).limit(1))
            told = [] if reply is not None else self._history(session, asked)
            return Task(asked.version, reply, told)

        return self._database.read(work)

    def store(
        self, owner: str, conversation_id: UUID, question_id: UUID, version: int, regenerate: str, content: str
    ) -> Message:
        """The reply; the one that is stored already where there is one. Raises NotFound."""

        def work(session: Session) -> Message:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            stored = select(Message).where(Message.reply_to == question_id, Message.question_version == version)
            if (reply := session.scalar(stored.where(Message.regenerate == regenerate))) is not None:
                return reply
            conversation.updated_at = queries.now()
            about = {"reply_to": question_id, "question_version": version, "regenerate": regenerate}
            return queries.add(session, conversation_id, "assistant", content, conversation.updated_at, **about)

        return self._database.write(work)

    def _history(self, session: Session, asked: Message) -> list[ChatMessage]:
        text = asked.edited_content or asked.content
        told = history.before(session, asked.conversation_id, asked.number, self._characters - len(text))
        return [*told, ChatMessage("user", text)]


def _asked(session: Session, conversation_id: UUID, message_id: UUID | None) -> Message:
    if message_id is None:
        if (last := queries.last(session, conversation_id)) is None:
            raise InvalidRequest("There is no message to answer yet.")
        return last
    message = queries.message(session, conversation_id, message_id)
    if message.role != "user":
        raise InvalidRequest("messageId: must be a user's message.")
    return message


def _replies_to(asked: Message, regenerate: str) -> "Select[Message]":
    found = select(Message).where(Message.reply_to == asked.id, Message.question_version == asked.version)
    return found.where(Message.regenerate == regenerate) if regenerate else found
