"""How the tables came to be, one revision a file in `versions/`, up and down on SQLite and PostgreSQL.

All revisions of a call run in one transaction, and one process at a time runs them: a second waits, and finds them done.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from alembic.config import Config  # A fifth of a process's start, for what most processes never do.

HEAD = "head"
VERSION_TABLE = "alembic_version"
"""Of one row, which the first revision makes."""


class UnknownRevision(Exception):
    pass


# Whoever asked for a change is told where the tables are now.
logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    _run("upgrade", connection, revision)


def downgrade(connection: Connection, revision: str) -> None:
    """`revision`: its name, `base` for none at all, or `-1` for one step."""
    _run("downgrade", connection, revision)


def current(connection: Connection) -> str:
    """The revision the database is at, "" before the first."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision() or ""


def _run(name: str, connection: Connection, revision: str) -> None:
    """Raises UnknownRevision."""
    from alembic import command
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # A wait for another's migration, or a large index.
        # Held until the transaction ends; SQLite's write lock, which the transaction began with, does the same there.
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
