"""The schema of an opened database: created when new, migrated when older, refused when newer.

A current database costs one small query. Alembic is imported only when there is something to migrate, as it
takes as long to import as the whole command ``threads list`` may take.
"""

from __future__ import annotations

from importlib import resources

from sqlalchemy import Connection, Engine, inspect, select

from agent.errors import DatabaseError
from agent.persistence import postgres
from agent.persistence.tables import REVISIONS, metadata, revisions

_HEAD = REVISIONS[-1]


def ensure(readers: Engine, writers: Engine, *, name: str) -> None:
    """Bring the database to the schema of this version.

    Raises:
        DatabaseError: Written by a newer version, or not a database of ours.
    """
    with readers.begin() as connection:
        revision = stored_revision(connection)
    if revision == _HEAD:
        return
    with writers.begin() as connection:
        revision = stored_revision(connection)  # another process may have come first
        if revision is None:
            if connection.dialect.name == "postgresql":
                postgres.create_schema(connection)
            _create(connection, name=name)
        elif revision not in REVISIONS:
            raise DatabaseError(
                f"{name} was written by a newer version of vllm-agent (schema {revision}, this version knows "
                f"up to {_HEAD}): upgrade vllm-agent, or give another path"
            )
        elif revision != _HEAD:
            migrate(connection)


def migrate(connection: Connection, *, to: str = "head") -> None:
    """Run every migration that this database lacks, within the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("agent.persistence") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def stored_revision(connection: Connection) -> str | None:
    """The schema that a database has, ``None`` if it has none of ours."""
    if not inspect(connection).has_table(revisions.name):
        return None
    return connection.scalar(select(revisions.c.version_num))


def _create(connection: Connection, *, name: str) -> None:
    ours = set(metadata.tables)
    if foreign := ours.intersection(inspect(connection).get_table_names()):
        raise DatabaseError(
            f"{name} holds another program's tables ({', '.join(sorted(foreign))}): give another path, or "
            "another database. What LangGraph's own savers wrote is read by `vllm-agent threads import`"
        )
    metadata.create_all(connection)
    connection.execute(revisions.insert().values(version_num=_HEAD))
