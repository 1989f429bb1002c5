"""Turns of the direct chat, in one hidden conversation per user, and users' preferences."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("chat_conversations", sa.Column("hidden", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("chat_messages", sa.Column("turn_id", sa.String(128)))
    op.add_column("chat_messages", sa.Column("spoken", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("uq_chat_messages_turn", "chat_messages", ["conversation_id", "turn_id"], unique=True)
    op.create_index("ix_chat_messages_reply_to", "chat_messages", ["reply_to"])
    op.create_table(
        "chat_preferences",
        sa.Column("owner_id", sa.String(400), primary_key=True),
        sa.Column("response_language", sa.String(2), nullable=False),
    )


def downgrade() -> None:
    """Deletes the direct chats, as nothing would hide them from the list."""
    op.drop_table("chat_preferences")
    conversations = sa.table("chat_conversations", sa.column("id", sa.Uuid()), sa.column("hidden", sa.Boolean()))
    op.execute(sa.delete(conversations).where(conversations.c.hidden))
    op.drop_index("ix_chat_messages_reply_to", "chat_messages")
    op.drop_index("uq_chat_messages_turn", "chat_messages")
    op.drop_column("chat_messages", "spoken")
    op.drop_column("chat_messages", "turn_id")
    op.drop_column("chat_conversations", "hidden")
