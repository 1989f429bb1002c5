"""The privileges on PostgreSQL's tables and sequences that the stores need, where another user has created them."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import TextClause, text

from bff.db.models import Base, Message

_TABLES: Final = ", ".join(f"('{name}')" for name in sorted(Base.metadata.tables))

MISSING: Final[TextClause] = text(  # Constants only.
    "SELECT privilege || ' ON ' || name"  # noqa: S608
    f" FROM (VALUES {_TABLES}) AS ours (name), (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS needed (privilege)"
    " WHERE NOT has_table_privilege(name, privilege)"
    " UNION ALL SELECT 'USAGE ON SEQUENCE ' || sequence"
    f" FROM (SELECT pg_get_serial_sequence('{Message.__tablename__}', 'number') AS sequence) AS sequences"
    " WHERE NOT has_sequence_privilege(sequence, 'USAGE') ORDER BY 1"
)
"""One row for each privilege that the user of the connection lacks."""


def explain(missing: Sequence[str]) -> str:
    return f"The user of DATABASE_URL lacks privileges: GRANT {', '.join(missing)}"
