"""Alembic's environment: migrations run in the transaction of whoever opens the database."""

from __future__ import annotations

from alembic import context

from agent.persistence.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
