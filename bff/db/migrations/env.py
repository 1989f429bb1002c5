"""What Alembic runs for each call of its commands: on the connection, and in the transaction, that it was given."""

from alembic import context

from bff.db.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
