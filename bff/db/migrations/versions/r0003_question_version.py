"""Adds the version of the question that a reply answers. Drops claims: replies are now messages in the broker's queue."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

OLD, NEW = ["reply_to", "regenerate"], ["reply_to", "question_version", "regenerate"]
UNIQUE = "uq_chat_messages_reply"

# SQLite recreates a table to change a constraint. Safe for `chat_messages` only, as no other table refers to it.

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
    _set_versions(op.get_bind())
    op.drop_column("chat_conversations", "claim")
    op.drop_column("chat_conversations", "claimed_until")


def _set_versions(connection: sa.Connection) -> None:
    """A reply that is newer than the edit of its question answers that version."""
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
    """The newest reply to a question stays a reply; those to other versions become plain messages."""
    connection = op.get_bind()
    newest = sa.select(sa.func.max(messages.c.number)).where(messages.c.reply_to.is_not(None))
    newest = newest.group_by(messages.c.reply_to, messages.c.regenerate)
    latest = connection.scalars(newest).all()
    older = sa.and_(messages.c.reply_to.is_not(None), messages.c.number.not_in(latest))
    connection.execute(sa.update(messages).where(older).values(reply_to=None))
    with op.batch_alter_table("chat_messages") as table:
        table.drop_constraint(UNIQUE, type_="unique")
        table.create_unique_constraint(UNIQUE, OLD)
        table.drop_column("question_version")
    op.add_column("chat_conversations", sa.Column("claim", sa.Uuid()))
    op.add_column("chat_conversations", sa.Column("claimed_until", sa.Float(53)))
