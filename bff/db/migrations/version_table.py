"""Where the database's revision is stored: in a table of our own, as databases are shared with other programs.

`alembic_version` is Alembic's default, so that two programs with one database would read each other's revisions. Earlier
releases used it: their row is moved from there, and back by a downgrade below OWN_TABLE_REVISION.
"""

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, TableClause, column, delete, insert, inspect, select, table, text

from bff.db.models import Base

VERSION_TABLE: Final = "chat_alembic_version"
"""Has one row after the first revision."""
DEFAULT_TABLE: Final = "alembic_version"
OWN_TABLE_REVISION: Final = "0006"
"""Releases that know only older revisions read DEFAULT_TABLE."""
FIRST_COLUMNS: Final = {
    "chat_conversations": {"id", "owner_id", "agent_id", "updated_at"},
    "chat_messages": {"number", "conversation_id", "reply_to", "regenerate"},
}
"""Columns of ours since the first revision: another program's table of the same name lacks some."""


def current_revision(connection: Connection) -> str:
    """The revision of the database; "" before the first."""
    return _own_revision(connection) or _revision_in_default_table(connection)


def adopt_default_table(connection: Connection) -> None:
    """Moves our row from DEFAULT_TABLE to VERSION_TABLE. A row of another program stays."""
    if _own_revision(connection) or not (revision := _revision_in_default_table(connection)):
        return
    _store(connection, VERSION_TABLE, revision)
    connection.execute(delete(_version(DEFAULT_TABLE)).where(column("version_num") == revision))


def restore_default_table(connection: Connection) -> None:
    """After a downgrade to a revision of an earlier release: stores it where that release reads it, if nobody else does."""
    revision = _own_revision(connection)
    if not revision or revision >= OWN_TABLE_REVISION or _rows(connection, DEFAULT_TABLE):
        return
    _store(connection, DEFAULT_TABLE, revision)
    connection.execute(delete(_version(VERSION_TABLE)))


def foreign_names(connection: Connection) -> list[str]:
    """Names of our tables and indexes that another program uses. Only for a database without a revision of ours."""
    tables = Base.metadata.tables.values()
    ours = {one.name for one in tables} | {str(index.name) for one in tables for index in one.indexes}
    return sorted(ours & set(connection.scalars(text(_LISTS[connection.dialect.name]))))


_LISTS: Final = {
    "sqlite": "SELECT name FROM sqlite_master",
    "postgresql": "SELECT relname FROM pg_class WHERE relnamespace ="
    " (SELECT oid FROM pg_namespace WHERE nspname = current_schema())",
}
"""Tables, views and indexes share one namespace, in PostgreSQL one for each schema."""


def _own_revision(connection: Connection) -> str:
    rows = _rows(connection, VERSION_TABLE)
    return str(rows[0].version_num) if rows else ""


def _revision_in_default_table(connection: Connection) -> str:
    found = [row.version_num for row in _rows(connection, DEFAULT_TABLE)]
    ours = [revision for revision in found if revision.isdigit() and len(revision) == 4 and revision < OWN_TABLE_REVISION]
    return max(ours) if ours and _has_our_tables(connection) else ""


def _has_our_tables(connection: Connection) -> bool:
    inspector = inspect(connection)
    return all(
        inspector.has_table(name) and columns <= {one["name"] for one in inspector.get_columns(name)}
        for name, columns in FIRST_COLUMNS.items()
    )


def _rows(connection: Connection, name: str) -> list[Row[Any]]:
    if not inspect(connection).has_table(name):
        return []
    query: Select[Any] = select(column("version_num")).select_from(table(name))
    return list(connection.execute(query))


def _store(connection: Connection, name: str, revision: str) -> None:
    """Creates the table as Alembic does."""
    create = "CREATE TABLE IF NOT EXISTS {0} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {0}_pkc PRIMARY KEY (version_num))"
    connection.execute(text(create.format(name)))
    connection.execute(insert(_version(name)).values(version_num=revision))


def _version(name: str) -> TableClause:
    return table(name, column("version_num"))
