"""What an agent would be told of a conversation."""

from uuid import UUID

from bff.db.database import Database
from bff.db.replies import Replies
from bff.upstream.messages import ChatMessage


def heard(database: Database, conversation_id: UUID, owner: str = "ada", characters: int = 10**6) -> list[ChatMessage]:
    """Up to the user's last message, as if that had no reply."""
    replies = Replies(database, characters)
    question = replies.question(owner, conversation_id, None, "")
    return replies.task(owner, conversation_id, question.id, "anew").history
