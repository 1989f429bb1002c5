"""The edited text of a message, in addition to the original one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("chat_messages", sa.Column("edited_content", sa.Text()))
    op.add_column("chat_messages", sa.Column("edited_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """The edits are lost; the original texts stay."""
    op.drop_column("chat_messages", "edited_at")
    op.drop_column("chat_messages", "edited_content")
