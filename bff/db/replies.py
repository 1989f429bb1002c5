"""Replies to the user's messages of a conversation: the question, the agent's history, and the reply, stored exactly once.

A reply answers one version of a question, that is its text after an edit. A question that was edited after its reply counts as
unanswered. Each version has at most one reply, and one more for each value of `regenerate`.
"""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from bff.db import branches, history, queries
from bff.db.database import Database
from bff.db.models import Conversation, Message
from bff.errors import InvalidRequest
from bff.upstream.messages import ChatMessage


class Question(NamedTuple):
    id: UUID
    version: int
    """Time of the last edit, in milliseconds since the epoch; 0 if never edited."""
    agent_id: str | None
    """The conversation's agent; None for the default one."""
    answered: bool
    """Whether there is a reply to this version; with a `regenerate`, whether there is one for that."""


class Task(NamedTuple):
    """What an agent needs to produce a reply."""

    version: int
    reply: Message | None
    """The reply if it is already stored."""
    history: list[ChatMessage]
    """The messages up to and including the question; [] if there is a reply."""


class Replies:
    def __init__(self, database: Database, history_characters: int) -> None:
        """`history_characters`: maximum length of the history for an agent. The question is always part of it."""
        self._database = database
        self._history_characters = history_characters

    def question(self, owner: str, conversation_id: UUID, message_id: UUID | None, regenerate: str) -> Question:
        """`message_id`: None for the user's last message in the current branch.

        Raises NotFound, or InvalidRequest if it is not a user's message.
        """

        def work(session: Session) -> Question:
            conversation = queries.owned(session, owner, conversation_id)
            question = _question(session, conversation, message_id)
            answered = session.scalar(_replies_to(question, regenerate).limit(1)) is not None
            return Question(question.id, question.version, conversation.agent_id, answered)

        return self._database.read(work)

    def task(self, owner: str, conversation_id: UUID, question_id: UUID, regenerate: str) -> Task:
        """Raises NotFound, InvalidRequest."""

        def work(session: Session) -> Task:
            question = _question(session, queries.owned(session, owner, conversation_id), question_id)
            reply = session.scalar(_replies_to(question, regenerate).limit(1))
            messages = [] if reply is not None else self._history(session, question)
            return Task(question.version, reply, messages)

        return self._database.read(work)

    def store(
        self,
        owner: str,
        conversation_id: UUID,
        question_id: UUID,
        version: int,
        regenerate: str,
        content: str,
        *,
        truncated: bool = False,
    ) -> Message:
        """Returns the reply; the stored one if there is already one. `truncated`: see `Message`. Raises NotFound."""

        def work(session: Session) -> Message:
            conversation = queries.owned(session, owner, conversation_id, for_update=True)
            query = select(Message).where(Message.reply_to == question_id, Message.question_version == version)
            if (reply := session.scalar(query.where(Message.regenerate == regenerate))) is not None:
                return reply
            conversation.updated_at = queries.now()
            columns = {"reply_to": question_id, "question_version": version, "regenerate": regenerate, "truncated": truncated}
            columns["parent_id"] = _question(session, conversation, question_id).id
            reply = queries.add(session, conversation_id, "assistant", content, conversation.updated_at, **columns)
            branches.add_reply(session, conversation, reply)
            return reply

        return self._database.write(work)

    def _history(self, session: Session, question: Message) -> list[ChatMessage]:
        text = question.edited_content or question.content
        earlier = history.of_branch(session, question.parent_id, self._history_characters - len(text))
        return [*earlier, ChatMessage("user", text)]


def _question(session: Session, conversation: Conversation, message_id: UUID | None) -> Message:
    if message_id is None:
        if (last := branches.last_question(session, conversation.current_message_id)) is None:
            raise InvalidRequest("There is no message to answer yet.")
        return last
    message = queries.message(session, conversation.id, message_id)
    if message.role != "user":
        raise InvalidRequest("messageId: must be a user's message.")
    return message


def _replies_to(question: Message, regenerate: str) -> "Select[Message]":
    query = select(Message).where(Message.reply_to == question.id, Message.question_version == question.version)
    return query.where(Message.regenerate == regenerate) if regenerate else query
