"""Runs Alembic migrations, one revision per file in `versions/`, up and down, on SQLite and PostgreSQL.

All revisions of a call run in one transaction. A lock lets one process at a time migrate; the others wait for it.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config  # Takes a fifth of a process's start; most processes never migrate.

HEAD = "head"
VERSIONS = Path(__file__).parent / "versions"
VERSION_TABLE = "alembic_version"
"""Has one row after the first revision."""


class UnknownRevision(Exception):
    pass


# The commands print the resulting revision themselves.
logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    if revision != HEAD or not _is_at_head(connection):
        _run("upgrade", connection, revision)


def downgrade(connection: Connection, revision: str) -> None:
    """`revision`: a revision's name, `base` to drop all tables, or `-1` for one step."""
    _run("downgrade", connection, revision)


def current(connection: Connection) -> str:
    """The revision of the database; "" before the first."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision() or ""


def _is_at_head(connection: Connection) -> bool:
    """Found out without Alembic, as importing it takes a fifth of a process's start."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    revisions = connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")).all()  # noqa: S608 - a constant
    return revisions == [newest_revision()]


def newest_revision() -> str:
    """By the files' names: `r0004_direct_chat.py` is revision 0004."""
    return max(path.stem for path in VERSIONS.glob("r*.py"))[1:5]


def _run(name: str, connection: Connection, revision: str) -> None:
    """Raises UnknownRevision."""
    from alembic import command
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        # Waiting for another migration, or creating a large index, may take longer than a query may.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # Held until the transaction ends. On SQLite the transaction holds the write lock instead.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('chat_bff_migrations'))"))
    try:
        getattr(command, name)(_config(connection), revision)
    except CommandError as error:
        raise UnknownRevision(str(error)) from error


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
