"""The revision is stored in chat_alembic_version, no longer in alembic_version.

Changes nothing itself: see `version_table.py`. As a revision, it can be downgraded for a release that reads the old table.
"""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
