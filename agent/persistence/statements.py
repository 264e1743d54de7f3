"""The statements of the saver's hot path, written once and compiled once per database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.sql import Select

from agent.persistence.dialects import insert, joined
from agent.persistence.tables import channels, checkpoints, items, threads, writes

MAX_IN = 400
"""Longest list of ids in one statement; SQLite allows 32,766 parameters in all."""


def _of_thread(table: Table) -> ColumnElement[bool]:
    return table.c.thread_id == bindparam("thread_id")


def _of_namespace(table: Table) -> ColumnElement[bool]:
    return and_(_of_thread(table), table.c.ns == bindparam("ns"))


def _of_checkpoint(table: Table) -> ColumnElement[bool]:
    return and_(_of_namespace(table), table.c.checkpoint_id == bindparam("checkpoint_id"))


def _of_channel(table: Table) -> ColumnElement[bool]:
    return and_(_of_namespace(table), table.c.channel == bindparam("channel"))


_checkpoint = select(
    checkpoints.c.thread_id,
    checkpoints.c.ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_id,
    checkpoints.c.type,
    checkpoints.c.body,
    checkpoints.c.metadata,
)

CHECKPOINT = _checkpoint.where(_of_checkpoint(checkpoints))
LATEST_CHECKPOINT = (
    _checkpoint.where(_of_namespace(checkpoints)).order_by(checkpoints.c.checkpoint_id.desc()).limit(1)
)
LATEST_ID = select(func.max(checkpoints.c.checkpoint_id)).where(_of_namespace(checkpoints))
SIBLINGS = (
    select(checkpoints.c.checkpoint_id)
    .where(
        _of_namespace(checkpoints),
        checkpoints.c.parent_id.is_not_distinct_from(bindparam("parent_id")),
        checkpoints.c.checkpoint_id != bindparam("checkpoint_id"),
    )
    .limit(1)
)

NEWEST_FIRST = (
    checkpoints.c.checkpoint_id.desc(),
    checkpoints.c.thread_id.desc(),
    checkpoints.c.ns.desc(),
)


def page(
    conditions: Sequence[ColumnElement[bool]], *, size: int, after: tuple[str, str, str] | None
) -> Select[Any]:
    """Checkpoints, newest first, that meet the conditions and come after that row's key."""
    statement = _checkpoint.where(*conditions).order_by(*NEWEST_FIRST).limit(size)
    if after is None:
        return statement
    key = tuple_(checkpoints.c.checkpoint_id, checkpoints.c.thread_id, checkpoints.c.ns)
    return statement.where(key < tuple_(*map(literal, after)))


# The values of many checkpoints in one go. The product of the lists can name more rows than asked for; there
# are hardly any, as versions are unique, and the caller takes what it needs.
CHANNELS = select(
    channels.c.thread_id,
    channels.c.ns,
    channels.c.channel,
    channels.c.version,
    channels.c.type,
    channels.c.value,
).where(
    channels.c.thread_id.in_(bindparam("thread_ids", expanding=True)),
    channels.c.ns.in_(bindparam("namespaces", expanding=True)),
    channels.c.channel.in_(bindparam("names", expanding=True)),
    channels.c.version.in_(bindparam("versions", expanding=True)),
)
ITEMS = select(
    items.c.thread_id, items.c.ns, items.c.channel, items.c.seq, items.c.type, items.c.value
).where(
    items.c.thread_id.in_(bindparam("thread_ids", expanding=True)),
    items.c.ns.in_(bindparam("namespaces", expanding=True)),
    items.c.channel.in_(bindparam("names", expanding=True)),
    items.c.seq.between(bindparam("first"), bindparam("last")),
)
HOLD = select(threads.c.thread_id).where(_of_thread(threads)).with_for_update()
"""Lets nobody else write steps of a thread until the transaction ends; finds nothing if it was deleted. In
PostgreSQL each further statement then sees the same steps; SQLite has one writer anyway."""
_write = select(
    writes.c.thread_id,
    writes.c.ns,
    writes.c.checkpoint_id,
    writes.c.task_path,
    writes.c.task_id,
    writes.c.idx,
    writes.c.channel,
    writes.c.type,
    writes.c.value,
)
WRITES = _write.where(
    writes.c.thread_id.in_(bindparam("thread_ids", expanding=True)),
    writes.c.ns.in_(bindparam("namespaces", expanding=True)),
    writes.c.checkpoint_id.in_(bindparam("checkpoint_ids", expanding=True)),
)
CHECKPOINT_WRITES = _write.where(_of_checkpoint(writes))
LATEST_WRITES = _write.where(_of_namespace(writes), writes.c.checkpoint_id == LATEST_ID.scalar_subquery())
CHANNEL_WRITES = _write.where(
    _of_namespace(writes),
    writes.c.checkpoint_id >= bindparam("first"),
    writes.c.checkpoint_id <= bindparam("last"),
    writes.c.channel.in_(bindparam("names", expanding=True)),
)
"""The writes to some channels under a range of checkpoints."""

LIST_STATE = select(
    select(channels.c.value)
    .where(_of_channel(channels), channels.c.type == "list")
    .order_by(channels.c.version.desc())
    .limit(1)
    .scalar_subquery(),
    select(func.coalesce(func.max(items.c.seq), 0)).where(_of_channel(items)).scalar_subquery(),
)
"""The newest manifest of a list, and the number of its last element."""
ITEM_RANGE = (
    select(items.c.seq, items.c.type, items.c.value)
    .where(_of_channel(items), items.c.seq.between(bindparam("first"), bindparam("last")))
    .order_by(items.c.seq)
)
JOINED_ITEMS = {
    dialect: select(
        func.count(), func.sum(func.length(items.c.value)), joined(dialect, items.c.value, order=items.c.seq)
    ).where(
        _of_channel(items),
        items.c.seq.between(bindparam("first"), bindparam("last")),
        items.c.type == bindparam("kind"),
    )
    for dialect in ("sqlite", "postgresql")
}
"""How many elements of that kind a range has, their bytes in all, and these end to end."""


def _ancestors() -> Select[Any]:
    start = (
        select(checkpoints.c.checkpoint_id, checkpoints.c.parent_id, literal(0).label("depth"))
        .where(_of_checkpoint(checkpoints))
        .cte("ancestors", recursive=True)
    )
    parent = checkpoints.alias("parent")
    walk = start.union_all(
        select(parent.c.checkpoint_id, parent.c.parent_id, start.c.depth + 1).where(
            parent.c.thread_id == bindparam("thread_id"),
            parent.c.ns == bindparam("ns"),
            parent.c.checkpoint_id == start.c.parent_id,
            start.c.depth < bindparam("depth"),
        )
    )
    return (
        select(walk.c.checkpoint_id, walk.c.parent_id, checkpoints.c.type, checkpoints.c.body)
        .where(
            checkpoints.c.thread_id == bindparam("thread_id"),
            checkpoints.c.ns == bindparam("ns"),
            checkpoints.c.checkpoint_id == walk.c.checkpoint_id,
        )
        .order_by(walk.c.depth)
    )


PRECEDING = (
    select(checkpoints.c.checkpoint_id, checkpoints.c.parent_id, checkpoints.c.type, checkpoints.c.body)
    .where(_of_namespace(checkpoints), checkpoints.c.checkpoint_id <= bindparam("checkpoint_id"))
    .order_by(checkpoints.c.checkpoint_id.desc())
    .limit(bindparam("depth"))
)
"""A checkpoint and those of any branch with smaller ids, nearest first."""
ANCESTORS = _ancestors()
"""A checkpoint and its ancestors, nearest first, at most ``depth`` steps up the parent chain."""


def _messages_added() -> ColumnElement[int]:
    """How many messages a checkpoint adds that does not hold them: those written under its parent."""
    stored = exists().where(
        checkpoints.c.thread_id == bindparam("of"),
        checkpoints.c.ns == "",
        checkpoints.c.checkpoint_id == bindparam("checkpoint_id"),
    )
    # One write that can do more than add makes the sum, and so the count, unknown.
    unknown = func.count() > func.count(writes.c.messages)
    added = select(case((unknown, None), else_=func.coalesce(func.sum(writes.c.messages), 0))).where(
        writes.c.thread_id == bindparam("of"),
        writes.c.ns == "",
        writes.c.checkpoint_id == bindparam("parent_id"),
        writes.c.channel == "messages",
    )
    return case((stored, 0), else_=added.scalar_subquery())  # stored again, a checkpoint adds nothing


class Inserts:
    """The statements that need ``ON CONFLICT``, for one dialect."""

    def __init__(self, dialect: str) -> None:
        touch = insert(dialect, threads)
        changes = {
            "updated_at": touch.excluded.updated_at,
            "head_id": func.coalesce(touch.excluded.head_id, threads.c.head_id),
            "messages": func.coalesce(touch.excluded.messages, threads.c.messages),
            "title": func.coalesce(threads.c.title, touch.excluded.title),
            "status": case((touch.excluded.status == "", threads.c.status), else_=touch.excluded.status),
        }
        self.thread = touch.on_conflict_do_update(index_elements=["thread_id"], set_=changes)
        adding = {**changes, "messages": threads.c.messages + _messages_added()}
        self.thread_adding = touch.on_conflict_do_update(index_elements=["thread_id"], set_=adding)
        """With ``of`` (the thread again), ``checkpoint_id`` and ``parent_id`` of what is stored."""
        put = insert(dialect, checkpoints)
        self.checkpoint = put.on_conflict_do_update(
            index_elements=["thread_id", "ns", "checkpoint_id"],
            set_={name: put.excluded[name] for name in ("parent_id", "run_id", "type", "body", "metadata")},
        )
        self.channel = insert(dialect, channels).on_conflict_do_nothing()
        self.item = insert(dialect, items)
        self.write = insert(dialect, writes).on_conflict_do_nothing()
        again = insert(dialect, writes)
        self.special_write = again.on_conflict_do_update(
            index_elements=["thread_id", "ns", "checkpoint_id", "task_id", "idx"],
            set_={
                name: again.excluded[name] for name in ("task_path", "channel", "type", "value", "messages")
            },
        )
