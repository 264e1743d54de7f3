"""Conversations out of databases that LangGraph's own savers wrote; these need not be installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import select, update

from agent.errors import DatabaseError, PersistenceError
from agent.persistence.foreign import Source, readable
from agent.persistence.langgraph_sqlite import open_source as open_sqlite
from agent.persistence.records import Address
from agent.persistence.saver import SQLSaver
from agent.persistence.serde import AllowedType
from agent.persistence.tables import threads
from agent.persistence.transactions import Transaction


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    imported: tuple[str, ...]
    """Thread ids that are new here."""
    skipped: tuple[str, ...]
    """Thread ids that were here already; they are left as they are."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Thread ids that could not be taken, and why; there is nothing of them here."""


def import_langgraph_sqlite(
    saver: SQLSaver, path: str | os.PathLike[str], *, allowed_types: tuple[AllowedType, ...] = ()
) -> Imported:
    """Copy every conversation of a file that LangGraph's SQLite savers wrote. The file is only read.

    Args:
        saver: Where they go.
        path: The file.
        allowed_types: As for :func:`agent.persistence.open_checkpointer`.

    Raises:
        DatabaseError: It is not such a file, or they cannot be stored here.
    """
    with open_sqlite(path, serde=_serde(allowed_types)) as source:
        return _import(saver, source)


def import_langgraph_postgres(
    saver: SQLSaver, url: str, *, allowed_types: tuple[AllowedType, ...] = ()
) -> Imported:
    """Copy every conversation of a database that LangGraph's PostgreSQL savers wrote. It is only read.

    Args:
        saver: Where they go; it may be the same database, as our tables are in a schema of their own.
        url: ``postgresql://…``.
        allowed_types: As for :func:`agent.persistence.open_checkpointer`.

    Raises:
        ConfigurationError: Not a URL of PostgreSQL, or its driver is missing.
        DatabaseError: There are no such tables, or they cannot be stored here.
    """
    from agent.persistence.langgraph_postgres import open_source

    with open_source(url, serde=_serde(allowed_types)) as source:
        return _import(saver, source)


def _serde(allowed_types: tuple[AllowedType, ...]) -> JsonPlusSerializer:
    return JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=allowed_types or None)


def _import(saver: SQLSaver, source: Source) -> Imported:
    known = {row[0] for row in saver.database.read(lambda each: each.once(select(threads.c.thread_id)))}
    imported, skipped = [], []
    failed: dict[str, str] = {}
    for thread_id in source.thread_ids():
        if thread_id in known:
            skipped.append(thread_id)
            continue
        try:
            saver.database.write(_copying(saver, source, thread_id))
            imported.append(thread_id)
        except DatabaseError:
            raise  # that is ours, and the next one would meet it too
        except PersistenceError as error:
            failed[thread_id] = str(error)
    return Imported(imported=tuple(imported), skipped=tuple(skipped), failed=failed)


def _copying(saver: SQLSaver, source: Source, thread_id: str) -> Callable[[Transaction], None]:
    """The work of copying one thread, all of it or nothing."""

    def work(transaction: Transaction) -> None:
        versions: dict[tuple[str, str | None], dict[str, Any]] = {}
        times: list[str] = []
        for found in readable(source, thread_id):
            checkpoint_id = found.checkpoint["id"]
            parent: RunnableConfig = Address(thread_id, found.ns, None).config(found.parent_id)
            before = versions.get((found.ns, found.parent_id), {})
            current = versions[found.ns, checkpoint_id] = dict(found.checkpoint["channel_versions"])
            changed = {name: current[name] for name in current if current[name] != before.get(name)}
            saver.writer.checkpoint(parent, found.checkpoint, found.metadata, changed)(transaction)
            times.append(found.checkpoint["ts"])
            here = Address(thread_id, found.ns, checkpoint_id).config()
            for task_id, path, writes in found.tasks:
                saver.writer.writes(here, writes, task_id, path)(transaction)
        if times:
            span = {"created_at": min(times), "updated_at": max(times)}
            transaction.once(update(threads).where(threads.c.thread_id == thread_id).values(span))

    return work
