"""Files of ``langgraph-checkpoint-sqlite``, opened for reading."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.errors import DatabaseError
from agent.persistence.foreign import ForeignCheckpoint, by_task

_THREADS = "SELECT DISTINCT thread_id FROM checkpoints WHERE checkpoint IS NOT NULL"
_CHECKPOINTS = (
    "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
    "WHERE thread_id = ? ORDER BY checkpoint_id"
)
_WRITES = (
    "SELECT task_id, {path}, channel, type, value FROM writes "
    "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? ORDER BY task_id, idx"
)


@contextmanager
def open_source(path: str | os.PathLike[str], *, serde: SerializerProtocol) -> Iterator[SQLiteSource]:
    """Open such a file.

    Raises:
        DatabaseError: It is not there, is something else, or holds values that are not safe to load.
    """
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise DatabaseError(f"there is no file {file} to import")
    try:
        uri = f"file:{quote(os.path.abspath(file))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield SQLiteSource(connection, serde=serde)
    except (sqlite3.Error, NotImplementedError, ValueError, TypeError) as error:
        raise DatabaseError(f"{file} cannot be imported as a LangGraph SQLite file: {error}") from error


class SQLiteSource:
    """What such a file holds."""

    def __init__(self, connection: sqlite3.Connection, *, serde: SerializerProtocol) -> None:
        self._connection = connection
        self._serde = serde
        columns = [row[1] for row in connection.execute("PRAGMA table_info(writes)")]
        self._writes = _WRITES.format(path="task_path" if "task_path" in columns else "''")

    def thread_ids(self) -> Sequence[str]:
        """The threads that it has."""
        return [row[0] for row in self._connection.execute(_THREADS)]

    def checkpoints(self, thread_id: str) -> Iterator[ForeignCheckpoint]:
        """All checkpoints of a thread, oldest first."""
        load = self._serde.loads_typed
        rows = self._connection.execute(_CHECKPOINTS, (thread_id,))
        for ns, checkpoint_id, parent_id, kind, body, metadata in rows:
            writes = self._connection.execute(self._writes, (thread_id, ns, checkpoint_id))
            yield ForeignCheckpoint(
                ns=ns,
                parent_id=parent_id,
                checkpoint=load((kind, body)),
                metadata=json.loads(metadata) if metadata else {},
                tasks=[*by_task((task, way, name, load((k, v))) for task, way, name, k, v in writes)],
            )
