"""Databases of ``langgraph-checkpoint-postgres``, opened for reading.

A checkpoint there is JSON with its small values; each other value is a row by channel and version, as here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.errors import ConfigurationError, DatabaseError, MissingExtraError
from agent.persistence import postgres
from agent.persistence.foreign import ForeignCheckpoint, by_task
from agent.persistence.locations import database_url, without_password

if TYPE_CHECKING:
    from psycopg import Connection

_HAS_TABLES = "SELECT to_regclass('checkpoints'), to_regclass('checkpoint_blobs')"
_HAS_PATH = (
    "SELECT count(*) FROM pg_attribute "
    "WHERE attrelid = 'checkpoint_writes'::regclass AND attname = 'task_path'"
)
_THREADS = "SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id"
_CHECKPOINTS = (
    "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata FROM checkpoints "
    'WHERE thread_id = %s ORDER BY checkpoint_id COLLATE "C"'
)
_VALUES = "SELECT checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs WHERE thread_id = %s"
_WRITES = (
    "SELECT checkpoint_ns, checkpoint_id, task_id, {path}, channel, type, blob FROM checkpoint_writes "
    "WHERE thread_id = %s ORDER BY task_id, idx"
)
_EMPTY = "empty"
"""The type of a channel that has a version and no value."""


@contextmanager
def open_source(url: str, *, serde: SerializerProtocol) -> Iterator[PostgresSource]:
    """Open such a database, as it is at one moment.

    Raises:
        ConfigurationError: Not a URL of PostgreSQL, or its driver is missing.
        DatabaseError: There are no such tables, or they hold values that are not safe to load.
    """
    address = database_url(url)
    if address.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"{without_password(url)!r} is no address of a PostgreSQL database: write postgresql://…"
        )
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtraError(
            "PostgreSQL needs the package psycopg, which is not installed: pip install 'vllm-agent[postgres]'"
        ) from error
    name = address.set(query={}).render_as_string(hide_password=True)
    parts = {**address.translate_connect_args(username="user", database="dbname"), **address.query}
    try:
        with psycopg.connect(**parts) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            if None in (connection.execute(_HAS_TABLES).fetchone() or (None,)):
                raise DatabaseError(f"{name} holds no conversations of LangGraph's PostgreSQL saver")
            yield PostgresSource(connection, serde=serde)
    except psycopg.Error as error:
        raise DatabaseError(f"{name} cannot be imported: {postgres.explain(error)}") from error
    except (NotImplementedError, ValueError, TypeError, KeyError) as error:
        raise DatabaseError(f"{name} cannot be imported: {error}") from error


class PostgresSource:
    """What such a database holds."""

    def __init__(self, connection: Connection[Any], *, serde: SerializerProtocol) -> None:
        self._connection = connection
        self._serde = serde
        [(has_path,)] = connection.execute(_HAS_PATH).fetchall()
        self._writes = _WRITES.format(path="task_path" if has_path else "''")

    def thread_ids(self) -> Sequence[str]:
        """The threads that it has."""
        return [row[0] for row in self._connection.execute(_THREADS)]

    def checkpoints(self, thread_id: str) -> Iterator[ForeignCheckpoint]:
        """All checkpoints of a thread, oldest first."""
        load = self._serde.loads_typed
        values = {
            (ns, channel, version): (kind, bytes(blob))
            for ns, channel, version, kind, blob in self._rows(_VALUES, thread_id)
            if kind != _EMPTY and blob is not None
        }
        writes: dict[tuple[str, str], list[tuple[str, str, str, Any]]] = {}
        for ns, checkpoint_id, task_id, path, channel, kind, blob in self._rows(self._writes, thread_id):
            value = load((kind, bytes(blob)))
            writes.setdefault((ns, checkpoint_id), []).append((task_id, path, channel, value))
        for ns, checkpoint_id, parent_id, body, metadata in self._rows(_CHECKPOINTS, thread_id):
            stored = {
                channel: load(values[ns, channel, version])
                for channel, version in _versions(body).items()
                if (ns, channel, version) in values
            }
            # Where a value is both in the JSON and in a row, the JSON has a mark that says so.
            body["channel_values"] = {**(body.get("channel_values") or {}), **stored}
            yield ForeignCheckpoint(
                ns=ns,
                parent_id=parent_id,
                checkpoint=body,
                metadata=metadata,
                tasks=[*by_task(writes.get((ns, checkpoint_id), ()))],
            )

    def _rows(self, statement: str, thread_id: str) -> Sequence[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(statement, (thread_id,)).fetchall()
        return rows


def _versions(body: Mapping[str, Any]) -> Mapping[str, str]:
    return {channel: str(version) for channel, version in body["channel_versions"].items()}
