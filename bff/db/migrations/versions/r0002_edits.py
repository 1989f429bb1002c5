"""What a message was edited to, beside what was said."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("chat_messages", sa.Column("edited_content", sa.Text()))
    op.add_column("chat_messages", sa.Column("edited_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """The edits are lost; what was said is not."""
    op.drop_column("chat_messages", "edited_at")
    op.drop_column("chat_messages", "edited_content")
