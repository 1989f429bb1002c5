"""Stored responses of /v1/responses. Their input and output are messages of hidden conversations."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "chat_responses",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("owner_id", sa.String(400), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), sa.ForeignKey("chat_conversations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("message_id", sa.String(128), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("reply_id", sa.Uuid()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_code", sa.String(64), nullable=False, server_default=""),
        sa.Column("blocks", sa.JSON(), nullable=False),
        sa.Column("usage", sa.JSON()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_chat_responses_conversation", "chat_responses", ["conversation_id"])


def downgrade() -> None:
    """Deletes the responses with their conversations, as nothing could read those any more."""
    conversations = sa.table("chat_conversations", sa.column("id", sa.Uuid()))
    responses = sa.table("chat_responses", sa.column("conversation_id", sa.Uuid()))
    op.execute(sa.delete(conversations).where(conversations.c.id.in_(sa.select(responses.c.conversation_id))))
    op.drop_table("chat_responses")
