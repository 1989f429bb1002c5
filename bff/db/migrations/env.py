"""Run by Alembic for each command, on the connection and in the transaction of the caller."""

from alembic import context

from bff.db.migrations.version_table import VERSION_TABLE
from bff.db.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, version_table=VERSION_TABLE
)
context.run_migrations()
