"""Runs Alembic migrations, one revision per file in `versions/`, up and down, on SQLite and PostgreSQL.

All revisions of a call run in one transaction. A lock lets one process at a time migrate; the others wait for it.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from bff.db.migrations import version_table

if TYPE_CHECKING:
    from alembic.config import Config  # Takes a fifth of a process's start; most processes never migrate.

HEAD = "head"
VERSIONS = Path(__file__).parent / "versions"


class MigrationError(Exception):
    """`str(error)` is a sentence."""


class UnknownRevision(MigrationError):
    pass


class ForeignTables(MigrationError):
    """Another program has tables with names of ours."""


# The commands print the resulting revision themselves.
logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Raises UnknownRevision, ForeignTables."""
    if revision != HEAD or version_table.current_revision(connection) != newest_revision():
        _run("upgrade", connection, revision)


def downgrade(connection: Connection, revision: str) -> None:
    """`revision`: a revision's name, `base` to drop all tables, or `-1` for one step. Raises UnknownRevision."""
    _run("downgrade", connection, revision)


def current(connection: Connection) -> str:
    """The revision of the database; "" before the first. Does not import Alembic, which takes a fifth of a process's start."""
    return version_table.current_revision(connection)


def newest_revision() -> str:
    """By the files' names: `r0004_direct_chat.py` is revision 0004."""
    return max(path.stem for path in VERSIONS.glob("r*.py"))[1:5]


def _run(name: str, connection: Connection, revision: str) -> None:
    """Raises UnknownRevision, ForeignTables."""
    from alembic import command
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        # Waiting for another migration, or creating a large index, may take longer than a query may.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # Held until the transaction ends. On SQLite the transaction holds the write lock instead.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('chat_bff_migrations'))"))
    version_table.adopt_default_table(connection)
    _check_names(connection)
    try:
        getattr(command, name)(_config(connection), revision)
    except CommandError as error:
        raise UnknownRevision(f"There is no such revision: {error}") from error
    version_table.restore_default_table(connection)


def _check_names(connection: Connection) -> None:
    names = [] if version_table.current_revision(connection) else version_table.foreign_names(connection)
    if names:
        raise ForeignTables(
            f"This database has tables or indexes of another program with names of ours: {', '.join(names)}. Nothing was"
            " changed. Point DATABASE_URL at another database, or in PostgreSQL at a schema of our own:"
            " ?options=-csearch_path%3Dchat."
        )


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
