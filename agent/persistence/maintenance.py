"""Whole threads: delete, copy, prune; and the removal of values that nothing refers to any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import delete as delete_from
from sqlalchemy import func, literal, null, select, union_all, update

from agent.errors import ConflictError, DatabaseError, PersistenceError, ThreadNotFoundError
from agent.persistence import reading
from agent.persistence import statements as sql
from agent.persistence.dialects import from_json
from agent.persistence.history import ancestors
from agent.persistence.lists import LIST, Manifest
from agent.persistence.records import Address, now, status_after, stored_versions
from agent.persistence.tables import (
    STATE_TABLES,
    THREAD_TABLES,
    channels,
    checkpoints,
    items,
    threads,
    writes,
)
from agent.persistence.transactions import Transaction

T = TypeVar("T")

_DELTA_COUNTERS = "counters_since_delta_snapshot"
"""In a checkpoint's metadata: the delta channels whose value must be rebuilt from its ancestors."""


def delete(transaction: Transaction, thread_id: str) -> None:
    """Delete every row of a thread."""
    for table in THREAD_TABLES:
        transaction.once(delete_from(table).where(table.c.thread_id == thread_id))


def copy(transaction: Transaction, source: str, target: str) -> None:
    """Copy every row of a thread.

    Raises:
        ConflictError: The target exists.
    """
    if transaction.once(select(threads.c.thread_id).where(threads.c.thread_id == target)):
        raise ConflictError(
            f"cannot copy conversation {source!r} to {target!r}: there is one of that id already"
        )
    transaction.must_not_repeat()
    transaction.value(sql.HOLD, {"thread_id": source})
    for table in STATE_TABLES:
        names = [column.name for column in table.columns]
        new = {"thread_id": literal(target), "indexed_at": null()}  # its messages are still to be indexed
        values = [new[name].label(name) if name in new else table.c[name] for name in names]
        rows = select(*values).where(table.c.thread_id == source)
        transaction.once(table.insert().from_select(names, rows))


def keep_latest(transaction: Transaction, serde: SerializerProtocol, thread_id: str) -> None:
    """Delete all checkpoints but the newest of each namespace and what those are rebuilt from.

    Raises:
        PersistenceError: It is damaged, so that nobody can tell what those are rebuilt from.
    """
    transaction.value(sql.HOLD, {"thread_id": thread_id})
    newest = (
        select(checkpoints.c.ns, func.max(checkpoints.c.checkpoint_id))
        .where(checkpoints.c.thread_id == thread_id)
        .group_by(checkpoints.c.ns)
    )
    keep = {(ns, checkpoint_id) for ns, checkpoint_id in transaction.once(newest)}
    try:
        keep |= _rebuilt_from(transaction, serde, thread_id, keep)
        keep_only(transaction, serde, thread_id, keep)
    except DatabaseError as error:  # the database's own errors have another name in here
        raise PersistenceError(f"conversation {thread_id!r} keeps its history: {error}") from error


def keep_only(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, keep: Collection[tuple[str, str]]
) -> None:
    """Delete all checkpoints but these, by namespace and id."""
    drop = [key for key in _all_checkpoints(transaction, thread_id) if key not in keep]
    _drop(transaction, serde, thread_id, drop)


def delete_runs(transaction: Transaction, serde: SerializerProtocol, run_ids: Sequence[str]) -> None:
    """Delete the checkpoints of these runs, except those that a remaining one is rebuilt from."""
    found: dict[str, set[tuple[str, str]]] = {}
    columns = (checkpoints.c.thread_id, checkpoints.c.ns, checkpoints.c.checkpoint_id)
    for batch in _batches(list(map(str, run_ids))):
        for thread_id, ns, checkpoint_id in transaction.once(
            select(*columns).where(checkpoints.c.run_id.in_(batch))
        ):
            found.setdefault(thread_id, set()).add((ns, checkpoint_id))
    for thread_id, of_runs in sorted(found.items()):
        transaction.value(sql.HOLD, {"thread_id": thread_id})
        keep = _all_checkpoints(transaction, thread_id) - of_runs
        needed = _rebuilt_from(transaction, serde, thread_id, keep)
        _drop(transaction, serde, thread_id, of_runs - needed)
        if keep:
            settle(transaction, serde, thread_id)
        else:
            delete(transaction, thread_id)


def _all_checkpoints(transaction: Transaction, thread_id: str) -> set[tuple[str, str]]:
    statement = select(checkpoints.c.ns, checkpoints.c.checkpoint_id).where(
        checkpoints.c.thread_id == thread_id
    )
    return {(ns, checkpoint_id) for ns, checkpoint_id in transaction.once(statement)}


def _rebuilt_from(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, kept: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    """The ancestors that delta channels of these checkpoints need, up to the nearest stored value of each."""
    needed: set[tuple[str, str]] = set()
    described = select(checkpoints.c.ns, checkpoints.c.checkpoint_id, checkpoints.c.metadata).where(
        checkpoints.c.thread_id == thread_id
    )
    for ns, checkpoint_id, metadata in transaction.once(described):
        missing = set(from_json(metadata).get(_DELTA_COUNTERS) or ())
        if (ns, checkpoint_id) not in kept or not missing:
            continue
        for ancestor_id, encoded in ancestors(transaction, Address(thread_id, ns, checkpoint_id)):
            body = serde.loads_typed(encoded)
            needed.add((ns, ancestor_id))
            missing -= stored_versions(body).keys() | body["channel_values"].keys()
            if not missing:
                break
    return needed


def _drop(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, drop: Iterable[tuple[str, str]]
) -> None:
    by_namespace: dict[str, list[str]] = {}
    for ns, checkpoint_id in drop:
        by_namespace.setdefault(ns, []).append(checkpoint_id)
    for ns, ids in by_namespace.items():
        for batch in _batches(ids):
            for table in (writes, checkpoints):
                transaction.once(
                    delete_from(table).where(
                        table.c.thread_id == thread_id, table.c.ns == ns, table.c.checkpoint_id.in_(batch)
                    )
                )
    if by_namespace:
        _collect_garbage(transaction, serde, thread_id)


def _collect_garbage(transaction: Transaction, serde: SerializerProtocol, thread_id: str) -> None:
    """Delete the channel values, and the list elements, that no checkpoint refers to any more."""
    bodies = select(checkpoints.c.ns, checkpoints.c.type, checkpoints.c.body).where(
        checkpoints.c.thread_id == thread_id
    )
    used = {
        (ns, name, version)
        for ns, kind, body in transaction.once(bodies)
        for name, version in stored_versions(serde.loads_typed((kind, body))).items()
    }
    stored = select(
        channels.c.ns, channels.c.channel, channels.c.version, channels.c.type, channels.c.value
    ).where(channels.c.thread_id == thread_id)
    elements: dict[tuple[str, str], set[int]] = {}
    unused = []
    for ns, name, version, kind, value in transaction.once(stored):
        if (ns, name, version) not in used:
            unused.append((ns, name, version))
        elif kind == LIST:
            elements.setdefault((ns, name), set()).update(Manifest.load(value).numbers())
    for ns, name, version in unused:
        transaction.once(
            delete_from(channels).where(
                channels.c.thread_id == thread_id,
                channels.c.ns == ns,
                channels.c.channel == name,
                channels.c.version == version,
            )
        )
    _drop_elements(transaction, thread_id, keep=elements)


def _drop_elements(
    transaction: Transaction, thread_id: str, *, keep: Mapping[tuple[str, str], set[int]]
) -> None:
    present = select(items.c.ns, items.c.channel, items.c.seq).where(items.c.thread_id == thread_id)
    unused: dict[tuple[str, str], list[int]] = {}
    for ns, name, number in transaction.once(present):
        if number not in keep.get((ns, name), ()):
            unused.setdefault((ns, name), []).append(number)
    for (ns, name), numbers in unused.items():
        for batch in _batches(numbers):
            transaction.once(
                delete_from(items).where(
                    items.c.thread_id == thread_id,
                    items.c.ns == ns,
                    items.c.channel == name,
                    items.c.seq.in_(batch),
                )
            )


def _batches(values: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(values), sql.MAX_IN):
        yield values[start : start + sql.MAX_IN]


def cut(transaction: Transaction, serde: SerializerProtocol, thread_id: str, checkpoint_id: str) -> None:
    """Make a checkpoint the newest of its thread: keep it, its ancestors, and what subgraphs did by then.

    Writes stored under it belong to the step that followed, so they go as well.
    """
    transaction.value(sql.HOLD, {"thread_id": thread_id})
    here = Address(thread_id, "", checkpoint_id)
    keep = {("", ancestor_id) for ancestor_id, _ in ancestors(transaction, here, own=True)}
    every = _all_checkpoints(transaction, thread_id)
    if ("", checkpoint_id) not in every:  # pruned since it was looked for: nothing would be left
        raise ThreadNotFoundError(f"conversation {thread_id!r} has no checkpoint {checkpoint_id!r} any more")
    keep |= {(ns, each) for ns, each in every if ns and each <= checkpoint_id}
    keep_only(transaction, serde, thread_id, keep)
    transaction.once(
        delete_from(writes).where(
            writes.c.thread_id == thread_id, writes.c.ns == "", writes.c.checkpoint_id == checkpoint_id
        )
    )
    settle(transaction, serde, thread_id)


def settle(transaction: Transaction, serde: SerializerProtocol, thread_id: str) -> None:
    """Describe a thread anew after its newest checkpoint has changed other than by a step."""
    found = reading.fetch(transaction, serde, Address(thread_id, "", None))
    if found is None:
        return
    values = {
        "head_id": found.checkpoint_id,
        "status": status_after(found.decode().checkpoint),  # of all its values: a question is one as well
        "updated_at": now(),
        "messages": None,
        "indexed_at": None,
    }
    transaction.once(update(threads).where(threads.c.thread_id == thread_id).values(values))


def largest(transaction: Transaction, *, count: int | None = 10) -> tuple[tuple[str, int], ...]:
    """The threads whose values take up most, with their bytes; all of them for ``None``."""
    sizes = union_all(
        *(
            select(table.c.thread_id, func.length(column).label("size"))
            for table, column in (
                (checkpoints, checkpoints.c.body),
                (channels, channels.c.value),
                (items, items.c.value),
                (writes, writes.c.value),
            )
        )
    ).subquery()
    total = func.sum(sizes.c.size)
    statement = (
        select(sizes.c.thread_id, total).group_by(sizes.c.thread_id).order_by(total.desc()).limit(count)
    )
    return tuple((str(thread_id), int(size)) for thread_id, size in transaction.once(statement))
