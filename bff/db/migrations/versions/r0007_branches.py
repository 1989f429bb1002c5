"""Branches: each message's parent, and each conversation's current message.

Existing messages form one branch, in their order. The hidden conversations of direct chat have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

conversations = sa.table(
    "chat_conversations",
    sa.column("id", sa.Uuid()),
    sa.column("hidden", sa.Boolean()),
    sa.column("current_message_id", sa.Uuid()),
)
messages = sa.table(
    "chat_messages",
    sa.column("id", sa.Uuid()),
    sa.column("number", sa.BigInteger()),
    sa.column("conversation_id", sa.Uuid()),
    sa.column("parent_id", sa.Uuid()),
)


def upgrade() -> None:
    op.add_column("chat_messages", sa.Column("parent_id", sa.Uuid()))
    op.add_column("chat_conversations", sa.Column("current_message_id", sa.Uuid()))
    op.create_index("ix_chat_messages_parent", "chat_messages", ["parent_id"])
    other = messages.alias()
    newest_first = sa.select(other.c.id).order_by(other.c.number.desc()).limit(1)
    listed = sa.select(conversations.c.id).where(conversations.c.hidden.is_(sa.false()))
    before = newest_first.where(other.c.conversation_id == messages.c.conversation_id, other.c.number < messages.c.number)
    last = newest_first.where(other.c.conversation_id == conversations.c.id)
    is_listed = messages.c.conversation_id.in_(listed)
    op.execute(sa.update(messages).where(is_listed).values(parent_id=before.scalar_subquery()))
    is_visible = conversations.c.hidden.is_(sa.false())
    op.execute(sa.update(conversations).where(is_visible).values(current_message_id=last.scalar_subquery()))


def downgrade() -> None:
    op.drop_index("ix_chat_messages_parent", "chat_messages")
    op.drop_column("chat_conversations", "current_message_id")
    op.drop_column("chat_messages", "parent_id")
