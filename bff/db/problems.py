"""Errors of SQLite and PostgreSQL that an operator can mend, as sentences."""

import sqlite3
from collections.abc import Mapping
from typing import Final

UPGRADE: Final = "run `flask chat db upgrade`"
DISK_FULL: Final = "The database's disk is full"

_POSTGRESQL: Final[Mapping[str, str]] = {
    "25006": "The database is read-only: DATABASE_URL names a standby, or default_transaction_read_only is on",
    "28000": "The database refuses the user of DATABASE_URL",
    "28P01": "The database refuses the password of DATABASE_URL",
    "3D000": "The database of DATABASE_URL does not exist",
    "3F000": "No schema of the search_path exists in the database: create it, or see the options of DATABASE_URL",
    "42P01": f"The database lacks a table of ours: {UPGRADE}",
    "42703": f"A table lacks a column of ours: {UPGRADE}; or it is another program's, which that command reports",
    "42501": "The user of DATABASE_URL lacks a privilege: GRANT it",
    "53100": DISK_FULL,
    "53300": "The database has no connection left: see its max_connections, or its plan's limit",
}
"""By SQLSTATE, see https://www.postgresql.org/docs/current/errcodes-appendix.html."""

_SQLITE: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_CANTOPEN: "The database's file cannot be opened: see its folder and permissions",
    sqlite3.SQLITE_FULL: DISK_FULL,
    sqlite3.SQLITE_IOERR: "The database's disk fails, or is full",
    sqlite3.SQLITE_NOTADB: "The database's file is not an SQLite database",
    sqlite3.SQLITE_READONLY: "The database's file, or its folder, is read-only",
}


def explain(error: BaseException) -> str:
    """The error's type and first line, after a sentence where there is one. Later lines may contain the statement's data."""
    first_line = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    sentence = _sentence(error, first_line)
    return f"{sentence} ({first_line})" if sentence else first_line


def _sentence(error: BaseException, first_line: str) -> str:
    if isinstance(error, sqlite3.Error):
        if "no such table" in first_line:
            return _POSTGRESQL["42P01"]
        if "no such column" in first_line:
            return _POSTGRESQL["42703"]
        return _SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
    return _POSTGRESQL.get(getattr(error, "sqlstate", None) or "", "")
