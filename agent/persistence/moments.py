"""The moments of a conversation: its checkpoints as a person looks at them, and what lies between two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import case, func, select

from agent.persistence import reading
from agent.persistence import statements as sql
from agent.persistence.records import MESSAGES_CHANNEL, Address
from agent.persistence.serde import StrictSerializer
from agent.persistence.tables import checkpoints
from agent.persistence.transactions import Transaction
from agent.persistence.transcripts import messages_at, messages_of, messages_of_each

_INTERNAL = ("__", "branch:", "join:")
"""How the names of channels begin that are LangGraph's own."""


@dataclass(frozen=True)
class Moment:
    """One checkpoint of a conversation."""

    number: int
    """Its place: 1 is the oldest that is kept."""
    checkpoint_id: str
    """What names it."""
    parent_id: str | None
    """The one that it continues."""
    created_at: str
    """ISO 8601, UTC."""
    source: str | None
    """``input``, ``loop``, ``update`` or ``fork``."""
    step: int | None
    """The graph's step; -1 for the input."""
    message_count: int
    """Messages at this moment."""
    last: BaseMessage | None
    """The last of them."""


@dataclass(frozen=True)
class Difference:
    """What is different at the second of two checkpoints."""

    before: str
    """The first checkpoint."""
    after: str
    """The second one."""
    added: tuple[BaseMessage, ...]
    """Messages that only the second has."""
    removed: tuple[BaseMessage, ...]
    """Messages that only the first has."""
    changed: tuple[tuple[BaseMessage, BaseMessage], ...]
    """Messages of one id that say something else."""
    values: Mapping[str, tuple[Any, Any]]
    """Other values of the state that differ, by name; ``None`` where there is none."""


@dataclass(frozen=True)
class State:
    """What a checkpoint holds."""

    messages: Sequence[BaseMessage]
    """Oldest first."""
    values: Mapping[str, Any]
    """Everything else that the graph's author knows of."""


def moments(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, *, limit: int
) -> Sequence[Moment]:
    """The newest checkpoints, newest first; a handful of queries, however many they are."""
    conditions = (checkpoints.c.thread_id == thread_id, checkpoints.c.ns == "")
    younger_parents = func.count(case((checkpoints.c.parent_id >= checkpoints.c.checkpoint_id, 1)))
    [(total, out_of_order)] = transaction.once(select(func.count(), younger_parents).where(*conditions))
    rows = transaction.once(sql.page(conditions, size=limit, after=None))
    oldest_first = reading.complete(transaction, serde, rows)[::-1]
    if out_of_order:  # nothing says that their ancestors do not go round in a circle
        said: Iterable[Sequence[BaseMessage]] = (
            messages_of(transaction, serde, each) for each in oldest_first
        )
    else:
        said = messages_of_each(transaction, serde, oldest_first)
    first = int(total) - len(oldest_first) + 1
    found = [
        _moment(number, fetched, messages)
        for number, (fetched, messages) in enumerate(zip(oldest_first, said, strict=True), first)
    ]
    return found[::-1]


def _moment(number: int, fetched: reading.Fetched, messages: Sequence[BaseMessage]) -> Moment:
    return Moment(
        number=number,
        checkpoint_id=fetched.checkpoint_id,
        parent_id=fetched.parent_id,
        created_at=fetched.body["ts"],
        source=fetched.metadata.get("source"),
        step=fetched.metadata.get("step"),
        message_count=len(messages),
        last=messages[-1] if messages else None,
    )


def state_at(transaction: Transaction, serde: SerializerProtocol, address: Address) -> State | None:
    """What a checkpoint holds; ``None`` if there is none."""
    fetched = reading.fetch(transaction, serde, address)
    found = messages_at(transaction, serde, address)
    if fetched is None or found is None:
        return None
    values = fetched.decode().checkpoint["channel_values"]
    visible = {
        name: value
        for name, value in values.items()
        if name != MESSAGES_CHANNEL and not name.startswith(_INTERNAL)
    }
    return State(messages=found[1], values=visible)


def differences(before: State, after: State, *, ids: tuple[str, str]) -> Difference:
    """Compare two states; messages are the same one if they have the same id, or are equal without one."""
    old = {_identity(message): message for message in before.messages}
    new = {_identity(message): message for message in after.messages}
    names = sorted(before.values.keys() | after.values.keys())
    values = {name: (before.values.get(name), after.values.get(name)) for name in names}
    return Difference(
        before=ids[0],
        after=ids[1],
        added=tuple(message for key, message in new.items() if key not in old),
        removed=tuple(message for key, message in old.items() if key not in new),
        changed=tuple((old[key], new[key]) for key in new if key in old and old[key] != new[key]),
        values={name: pair for name, pair in values.items() if _differ(*pair)},
    )


def _differ(one: Any, other: Any) -> bool:
    try:
        return bool(one != other)
    except Exception:  # arrays of NumPy, and what has them in it, give no single answer
        dump = StrictSerializer().dumps_typed
        return dump(one) != dump(other)


def _identity(message: BaseMessage) -> str:
    return message.id or repr(message)
