"""Conversations from one database into another, of either kind: how to move from the file to PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from sqlalchemy import select

from agent.errors import ConfigurationError, DatabaseError
from agent.persistence.database import Database
from agent.persistence.dialects import from_json, to_json
from agent.persistence.tables import STATE_TABLES, checkpoints, threads
from agent.persistence.transactions import Record, Transaction

_JSON_COLUMN = "metadata"


def copy_all(
    source: Database, target: Database, *, here: SerializerProtocol, there: SerializerProtocol
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy every conversation with its whole history, tags and journal, each in one transaction.

    What can be searched is not copied; it is indexed again by the first search.

    Args:
        source: Where they are.
        target: Where they go.
        here: What reads them in the source.
        there: What will read them in the target.

    Raises:
        ConfigurationError: The two have different keys.

    Returns:
        Thread ids that are new in the target, and those that were there already and are left as they are.
    """
    every = select(threads.c.thread_id).order_by(threads.c.updated_at)
    known = {row[0] for row in target.read(lambda transaction: transaction.once(every))}
    copied, skipped = [], []
    for (thread_id,) in source.read(lambda transaction: transaction.once(every)):
        if thread_id in known:
            skipped.append(thread_id)
            continue
        rows = source.read(partial(_rows, thread_id=thread_id))
        if isinstance(there, EncryptedSerializer):
            _require_one_key(rows[STATE_TABLES.index(checkpoints)][:1], here, there)
        target.write(partial(_insert, rows=rows))
        copied.append(thread_id)
    return tuple(copied), tuple(skipped)


def _require_one_key(rows: Sequence[Record], here: SerializerProtocol, there: SerializerProtocol) -> None:
    for row in rows:
        stored = dict(zip(checkpoints.columns.keys(), row, strict=True))
        value = (stored["type"], stored["body"])
        # One that is damaged, and so read by neither, is copied as it is.
        if (error := _trouble(there, value)) and not _trouble(here, value):
            raise ConfigurationError(
                f"values are copied as they are stored, and there they could not be read: {error}"
            ) from error


def _trouble(serde: SerializerProtocol, value: tuple[str, bytes]) -> DatabaseError | None:
    """Why a value cannot be read."""
    try:
        serde.loads_typed(value)
    except DatabaseError as error:
        return error
    return None


def _rows(transaction: Transaction, thread_id: str) -> Sequence[Sequence[Record]]:
    return [
        transaction.once(select(*table.columns).where(table.c.thread_id == thread_id))
        for table in STATE_TABLES
    ]


def _insert(transaction: Transaction, rows: Sequence[Sequence[Record]]) -> None:
    transaction.must_not_repeat()
    for table, found in zip(STATE_TABLES, rows, strict=True):
        names = [column.name for column in table.columns]
        for row in found:
            values = dict(zip(names, row, strict=True))
            if _JSON_COLUMN in values:
                values[_JSON_COLUMN] = to_json(from_json(values[_JSON_COLUMN]))
            if "indexed_at" in values:
                values["indexed_at"] = None
            transaction.run(_INSERTS[table.name], values)


_INSERTS = {table.name: table.insert() for table in STATE_TABLES}
