"""Which version of its question a reply answers. Claims are gone: replies are messages in the broker's queue."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

OLD, NEW = ["reply_to", "regenerate"], ["reply_to", "question_version", "regenerate"]
UNIQUE = "uq_chat_messages_reply"

# SQLite changes a constraint by making the table anew, which is safe for `chat_messages` only: no other table refers to it.

messages = sa.table(
    "chat_messages",
    sa.column("number", sa.BigInteger()),
    sa.column("id", sa.Uuid()),
    sa.column("reply_to", sa.Uuid()),
    sa.column("regenerate", sa.String()),
    sa.column("question_version", sa.BigInteger()),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("edited_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    with op.batch_alter_table("chat_messages") as table:
        table.add_column(sa.Column("question_version", sa.BigInteger(), nullable=False, server_default="0"))
        table.drop_constraint(UNIQUE, type_="unique")
        table.create_unique_constraint(UNIQUE, NEW)
    _find_versions(op.get_bind())
    op.drop_column("chat_conversations", "claim")
    op.drop_column("chat_conversations", "claimed_until")


def _find_versions(connection: sa.Connection) -> None:
    """Whoever was answered after an edit was answered in that version."""
    question = messages.alias()
    edited = sa.select(messages.c.number, question.c.edited_at).where(
        messages.c.reply_to == question.c.id, question.c.edited_at <= messages.c.created_at
    )
    for number, edited_at in connection.execute(edited).all():
        version = sa.update(messages).where(messages.c.number == number).values(question_version=_milliseconds(edited_at))
        connection.execute(version)


def _milliseconds(moment: datetime) -> int:
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def downgrade() -> None:
    """Of several versions' replies for one text the newest stays a reply; the others stay, as messages."""
    connection = op.get_bind()
    newest = sa.select(sa.func.max(messages.c.number)).where(messages.c.reply_to.is_not(None))
    newest = newest.group_by(messages.c.reply_to, messages.c.regenerate)
    kept = connection.scalars(newest).all()
    older = sa.and_(messages.c.reply_to.is_not(None), messages.c.number.not_in(kept))
    connection.execute(sa.update(messages).where(older).values(reply_to=None))
    with op.batch_alter_table("chat_messages") as table:
        table.drop_constraint(UNIQUE, type_="unique")
        table.create_unique_constraint(UNIQUE, OLD)
        table.drop_column("question_version")
    op.add_column("chat_conversations", sa.Column("claim", sa.Uuid()))
    op.add_column("chat_conversations", sa.Column("claimed_until", sa.Float(53)))
