"""What is in the database, where no browser sees it."""

from uuid import UUID

from bff.conversations import rows
from bff.conversations.database import Database
from bff.conversations.rows import Heard


def heard(database: Database, conversation_id: UUID) -> list[Heard]:
    """What an agent would be given of it now."""
    return database.read(lambda session: rows.history(session, conversation_id, up_to=10**6))
