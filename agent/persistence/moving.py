"""Conversations from one database into another, of either kind: how to move from the file to PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import select

from agent.persistence.database import Database
from agent.persistence.dialects import from_json, to_json
from agent.persistence.tables import STATE_TABLES, threads
from agent.persistence.transactions import Record, Transaction

_JSON_COLUMN = "metadata"


def copy_all(source: Database, target: Database) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy every conversation with its whole history, tags and journal, each in one transaction.

    What can be searched is not copied; it is indexed again by the first search.

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
        target.write(partial(_insert, rows=rows))
        copied.append(thread_id)
    return tuple(copied), tuple(skipped)


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
