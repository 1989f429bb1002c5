"""The history that an agent receives."""

from uuid import UUID

from bff.db.database import Database
from bff.db.replies import Replies
from bff.upstream.messages import ChatMessage


def agent_history(database: Database, conversation_id: UUID, owner: str = "ada", characters: int = 10**6) -> list[ChatMessage]:
    """Up to the user's last message, whether it has a reply or not."""
    replies = Replies(database, characters)
    question = replies.question(owner, conversation_id, None, "")
    return replies.task(owner, conversation_id, question.id, "further").history
