"""The right to answer a message: one at a time in a conversation, across processes, and nobody's for ever.

A claim is a token in the conversation's row. It holds while it is renewed, and a reply is kept only by the token that is
still there: one that comes late is harmless.
"""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Update, or_, select, update
from sqlalchemy.orm import Session

from bff.agents import Said
from bff.conversations import rows
from bff.conversations.database import Database
from bff.conversations.models import Conversation, DatabaseSeconds, Message
from bff.conversations.rows import Heard
from bff.errors import Busy, Interrupted, InvalidRequest


class Question(NamedTuple):
    """A user's message that is being answered, and the claim to do so."""

    claim: UUID
    conversation_id: UUID
    message_id: UUID
    regenerate: str
    history: list[Said]


class Claims:
    """`seconds`: how long a claim holds that is not renewed."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self.seconds = seconds

    def claim(
        self,
        owner: str,
        conversation_id: UUID,
        message_id: UUID | None = None,
        regenerate: str = "",
        seen: UUID | None = None,
    ) -> Question | None:
        """The claim to answer `message_id`, or else the user's last message.

        None when there is nothing to answer any more: it has a reply, or one for `regenerate`, or its reader has `seen`
        one. Raises Busy while another claim holds, NotFound, and InvalidRequest where there is no question.
        """

        def work(session: Session) -> Question | None:
            # The row is locked first, so that nobody can answer between our looking and our claiming.
            rows.owned(session, owner, conversation_id, to_write=True)
            if seen is not None and _is_reply(session, conversation_id, seen):
                return None
            asked = _asked(session, conversation_id, message_id)
            if _is_answered(session, asked.id, regenerate):
                return None
            token = self._take(session, conversation_id)
            history = [_said(heard) for heard in rows.history(session, conversation_id, asked.number)]
            return Question(token, conversation_id, asked.id, regenerate, history)

        return self._database.write(work)

    def _take(self, session: Session, conversation_id: UUID) -> UUID:
        token = uuid4()
        free = or_(Conversation.claim.is_(None), Conversation.claimed_until < DatabaseSeconds())
        taking = update(Conversation).where(Conversation.id == conversation_id, free)
        if not rows.change(session, taking.values(claim=token, claimed_until=self._until())):
            raise Busy("Another reply in this conversation is being written.")
        return token

    def keep(self, question: Question, content: str) -> Message:
        """The reply, and the end of the claim. Raises Interrupted when the claim was lost."""

        def work(session: Session) -> Message:
            now = rows.now()
            if not rows.change(session, _end(question).values(updated_at=now)):
                raise Interrupted(detail="the claim was lost")
            more = {"reply_to": question.message_id, "regenerate": question.regenerate}
            return rows.add(session, question.conversation_id, "assistant", content, now, **more)

        return self._database.write(work)

    def renew(self, claims: Mapping[UUID, UUID]) -> set[UUID]:
        """Those of `claims`, each with its conversation's id, that still hold: for `seconds` from now."""
        ours = (Conversation.id.in_(claims.values()), Conversation.claim.in_(claims))

        def work(session: Session) -> set[UUID]:
            rows.change(session, update(Conversation).where(*ours).values(claimed_until=self._until()))
            return {claim for claim in session.scalars(select(Conversation.claim).where(*ours)) if claim is not None}

        return self._database.write(work)

    def release(self, question: Question) -> None:
        """Idempotent."""
        self._database.write(lambda session: rows.change(session, _end(question)))

    def _until(self) -> ColumnElement[float]:
        return DatabaseSeconds() + self.seconds


def _end(question: Question) -> Update:
    # By the conversation first: a claim has no index.
    mine = (Conversation.id == question.conversation_id, Conversation.claim == question.claim)
    return update(Conversation).where(*mine).values(claim=None, claimed_until=None)


def _asked(session: Session, conversation_id: UUID, message_id: UUID | None) -> Message:
    if message_id is None:
        if (last := rows.last(session, conversation_id)) is None:
            raise InvalidRequest("There is no message to answer yet.")
        return last
    message = rows.message(session, conversation_id, message_id)
    if message.role != "user":
        raise InvalidRequest("messageId: must be a user's message.")
    return message


def _is_reply(session: Session, conversation_id: UUID, message_id: UUID) -> bool:
    found = select(Message.id).where(Message.conversation_id == conversation_id, Message.id == message_id)
    return session.scalar(found.where(Message.role == "assistant")) is not None


def _is_answered(session: Session, message_id: UUID, regenerate: str) -> bool:
    found = select(Message.id).where(Message.reply_to == message_id)
    if regenerate:
        found = found.where(Message.regenerate == regenerate)
    return session.scalar(found.limit(1)) is not None


def _said(heard: Heard) -> Said:
    return Said("user" if heard.message.role == "user" else "assistant", heard.effective_content)
