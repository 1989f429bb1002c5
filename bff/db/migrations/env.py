"""Run by Alembic for each command, on the connection and in the transaction of the caller."""

from alembic import context

from bff.db.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
