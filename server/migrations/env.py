"""Alembic's entry: the tables of `server.tables`, over the connection that `server.database` opened."""

from alembic import context

from server.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
