"""Alembic's migrations of the database; :mod:`agent.persistence.schema` runs them when a file is older."""
