"""Conversations out of the files of ``langgraph-checkpoint-sqlite``, which need not be installed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import select, update

from agent.errors import DatabaseError
from agent.persistence.records import Address
from agent.persistence.saver import SQLSaver
from agent.persistence.serde import AllowedType
from agent.persistence.tables import threads
from agent.persistence.transactions import Transaction

_THREADS = "SELECT DISTINCT thread_id FROM checkpoints WHERE checkpoint IS NOT NULL"
_CHECKPOINTS = (
    "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
    "WHERE thread_id = ? ORDER BY checkpoint_id"
)
_WRITES = (
    "SELECT task_id, {path}, idx, channel, type, value FROM writes "
    "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? ORDER BY task_id, idx"
)


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    imported: tuple[str, ...]
    """Thread ids that are new here."""
    skipped: tuple[str, ...]
    """Thread ids that were here already; they are left as they are."""


def import_langgraph_sqlite(
    saver: SQLSaver, path: str | os.PathLike[str], *, allowed_types: tuple[AllowedType, ...] = ()
) -> Imported:
    """Copy every conversation of a file that LangGraph's SQLite savers wrote. The file is only read.

    Args:
        saver: Where they go.
        path: The file.
        allowed_types: As for :func:`agent.persistence.open_checkpointer`.

    Raises:
        DatabaseError: It is not such a file, or holds values that are not safe to load.
    """
    serde = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=allowed_types or None)
    known = {row[0] for row in saver.database.read(lambda each: each.once(select(threads.c.thread_id)))}
    imported, skipped = [], []
    try:
        with closing(_open(Path(path))) as source:
            for (thread_id,) in source.execute(_THREADS).fetchall():
                if thread_id in known:
                    skipped.append(thread_id)
                    continue
                saver.database.write(_copying(saver, source, serde, thread_id))
                imported.append(thread_id)
    except (sqlite3.Error, NotImplementedError, ValueError) as error:
        raise DatabaseError(f"{path} cannot be imported as a LangGraph SQLite file: {error}") from error
    return Imported(imported=tuple(imported), skipped=tuple(skipped))


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise DatabaseError(f"there is no file {path} to import")
    return sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)


def _copying(
    saver: SQLSaver, source: sqlite3.Connection, serde: JsonPlusSerializer, thread_id: str
) -> Callable[[Transaction], None]:
    """The work of copying one thread, all of it or nothing."""

    def work(transaction: Transaction) -> None:
        versions: dict[tuple[str, str], dict[str, Any]] = {}
        times: list[str] = []
        for ns, checkpoint_id, parent_id, kind, body, metadata in source.execute(_CHECKPOINTS, (thread_id,)):
            checkpoint = serde.loads_typed((kind, body))
            parent: RunnableConfig = Address(thread_id, ns, None).config(parent_id)
            before = versions.get((ns, parent_id), {})
            current = versions[ns, checkpoint_id] = checkpoint["channel_versions"]
            changed = {name: current[name] for name in current if current[name] != before.get(name)}
            described: CheckpointMetadata = json.loads(metadata) if metadata else {}
            saver.writer.checkpoint(parent, checkpoint, described, changed)(transaction)
            times.append(checkpoint["ts"])
            here = Address(thread_id, ns, checkpoint_id).config()
            for task_id, path, writes in _tasks(source, serde, (thread_id, ns, checkpoint_id)):
                saver.writer.writes(here, writes, task_id, path)(transaction)
        span = {"created_at": min(times), "updated_at": max(times)}
        transaction.once(update(threads).where(threads.c.thread_id == thread_id).values(span))

    return work


def _tasks(
    source: sqlite3.Connection, serde: JsonPlusSerializer, key: tuple[str, str, str]
) -> Iterator[tuple[str, str, list[tuple[str, Any]]]]:
    has_path = any(row[1] == "task_path" for row in source.execute("PRAGMA table_info(writes)"))
    rows = source.execute(_WRITES.format(path="task_path" if has_path else "''"), key)
    tasks: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for task_id, path, _, channel, kind, value in rows:
        tasks.setdefault((task_id, path), []).append((channel, serde.loads_typed((kind, value))))
    for (task_id, path), writes in tasks.items():
        yield task_id, path, writes
