"""The messages of a conversation, read from its checkpoints without the graph that made them."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage, RemoveMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from sqlalchemy import delete, or_, select, update

from agent.errors import ConflictError, PersistenceError
from agent.persistence import full_text, history, reading
from agent.persistence import statements as sql
from agent.persistence.database import Database
from agent.persistence.records import MESSAGES_CHANNEL, Address, storable, stored_versions
from agent.persistence.tables import message_texts, threads
from agent.persistence.transactions import Transaction

logger = logging.getLogger(__name__)

_INSERT_TEXT = message_texts.insert()

_EVERYTHING = "__remove_all__"
"""The id of LangGraph's ``RemoveMessage`` that clears the list."""


def messages_at(
    transaction: Transaction, serde: SerializerProtocol, address: Address
) -> tuple[str, list[BaseMessage]] | None:
    """The id of a checkpoint (the newest, if the address names none) and the messages there."""
    fetched = reading.fetch(transaction, serde, address)
    return None if fetched is None else (fetched.checkpoint_id, messages_of(transaction, serde, fetched))


def messages_now(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, *, doing: str
) -> list[BaseMessage] | None:
    """The messages of a conversation as it is now.

    One that is damaged, encrypted with another key, or of a graph with messages of another kind must not
    stand in the way of the others: there is a warning, in which ``doing`` says what it cannot be, and
    ``None``.
    """
    try:
        found = messages_at(transaction, serde, Address(thread_id, "", None))
    except PersistenceError as error:
        logger.warning("conversation %r cannot be %s: %s", thread_id, doing, error)
        return None
    return found[1] if found else []


def messages_of(
    transaction: Transaction, serde: SerializerProtocol, fetched: reading.Fetched
) -> list[BaseMessage]:
    """The messages of a checkpoint; those that are kept as deltas take further queries."""
    held = _held(fetched.decode())
    return _replayed(transaction, serde, fetched) if held is None else held


def messages_of_each(
    transaction: Transaction, serde: SerializerProtocol, line: Sequence[reading.Fetched]
) -> Iterator[list[BaseMessage]]:
    """The messages of several checkpoints, one after the other, as :func:`messages_of` finds those of each.

    Replayed one by one, messages that are kept as deltas would be read as often as there are checkpoints
    after them. Here a checkpoint continues its parent, by the writes that were fetched with that.

    Args:
        transaction: The one in which they were fetched.
        serde: The saver's serializer.
        line: Checkpoints of one namespace, the parents first. Their ancestors must not go round in a circle:
            what a parent is replayed from is then a part of what its children are.
    """
    children = Counter(fetched.parent_id for fetched in line)
    begun: dict[str | None, _Begun] = {}
    for fetched in line:
        found = fetched.decode()
        messages = _held(found)
        if messages is None:
            parent = begun.get(fetched.parent_id)
            messages = _replayed(transaction, serde, fetched) if parent is None else parent.continued()
        yield messages
        children[fetched.parent_id] -= 1
        if not children[fetched.parent_id]:  # not all lists at once
            begun.pop(fetched.parent_id, None)
        if children[fetched.checkpoint_id] and MESSAGES_CHANNEL in found.checkpoint["channel_versions"]:
            begun[fetched.checkpoint_id] = _Begun.by(fetched, found, messages)


@dataclass(frozen=True)
class _Begun:
    """What the children of a checkpoint begin with."""

    messages: list[BaseMessage]
    written: Sequence[Any]

    @classmethod
    def by(cls, fetched: reading.Fetched, found: CheckpointTuple, messages: list[BaseMessage]) -> _Begun:
        stored = MESSAGES_CHANNEL in stored_versions(fetched.body)
        lost = stored and MESSAGES_CHANNEL not in found.checkpoint["channel_values"]
        written = [value for _, name, value in found.pending_writes or () if name == MESSAGES_CHANNEL]
        return cls([] if lost else messages, written)  # nothing is replayed across a stored value

    def continued(self) -> list[BaseMessage]:
        return functools.reduce(merged, self.written, self.messages)


def _held(found: CheckpointTuple) -> list[BaseMessage] | None:
    """The messages that a checkpoint holds; ``None`` if they are kept as deltas."""
    values = found.checkpoint["channel_values"]
    if MESSAGES_CHANNEL in values:
        return _as_messages(values[MESSAGES_CHANNEL])
    return None if MESSAGES_CHANNEL in found.checkpoint["channel_versions"] else []


def _replayed(
    transaction: Transaction, serde: SerializerProtocol, fetched: reading.Fetched
) -> list[BaseMessage]:
    here = Address(fetched.thread_id, fetched.ns, fetched.checkpoint_id)
    outlines = history.Outlines(serde)
    found = history.collect(transaction, outlines, here, channels=[MESSAGES_CHANNEL])[MESSAGES_CHANNEL]
    written = [value for _, _, value in found["writes"]]
    return functools.reduce(merged, written, _as_messages(found.get("seed", [])))


def merged(messages: Sequence[BaseMessage], written: Any) -> list[BaseMessage]:
    """Messages after a write, as LangGraph's ``add_messages`` does it: append, replace by id, remove."""
    if hasattr(written, "value") and type(written).__name__ == "Overwrite":
        return _as_messages(written.value)
    result = list(messages)
    positions = {message.id: position for position, message in enumerate(result) if message.id}
    removed: set[int] = set()
    for message in _as_messages(written):
        if isinstance(message, RemoveMessage):
            if message.id == _EVERYTHING:
                result, positions, removed = [], {}, set()
            elif message.id in positions:
                removed.add(positions[message.id])
        elif message.id in positions:
            result[positions[message.id]] = message
            removed.discard(positions[message.id])
        else:
            if message.id:
                positions[message.id] = len(result)
            result.append(message)
    return [message for position, message in enumerate(result) if position not in removed]


def add_messages(saver: BaseCheckpointSaver[str], thread_id: str, messages: Sequence[BaseMessage]) -> None:
    """Begin a conversation with these messages, for any graph whose state has ``messages``.

    Raises:
        ConflictError: There is a conversation of that id.
    """
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    if saver.get_tuple(config) is not None:
        raise ConflictError(f"there is a conversation {thread_id!r} already; import under another id")
    version = saver.get_next_version(None, None)
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {MESSAGES_CHANNEL: list(messages)}
    checkpoint["channel_versions"] = {MESSAGES_CHANNEL: version}
    saver.put(config, checkpoint, {"source": "update", "step": 0, "parents": {}}, {MESSAGES_CHANNEL: version})


def index_messages(database: Database, serde: SerializerProtocol) -> None:
    """Bring the search index up to date: it is filled when somebody searches, not at every step."""
    stale = select(threads.c.thread_id, threads.c.updated_at).where(
        or_(threads.c.indexed_at.is_(None), threads.c.indexed_at < threads.c.updated_at)
    )
    for thread_id, changed_at in database.read(lambda transaction: transaction.once(stale)):
        database.write(partial(_index, serde=serde, thread_id=thread_id, changed_at=changed_at))


def _index(transaction: Transaction, *, serde: SerializerProtocol, thread_id: str, changed_at: str) -> None:
    if transaction.value(sql.HOLD, {"thread_id": thread_id}) is None:
        return  # deleted since the list was read
    messages = messages_now(transaction, serde, thread_id, doing="searched") or []
    texts = [(message.type, full_text.divided(storable(str(message.text)))) for message in messages]
    transaction.once(delete(message_texts).where(message_texts.c.thread_id == thread_id))
    rows = [
        {"thread_id": thread_id, "position": position, "role": role, "text": text}
        for position, (role, text) in enumerate(texts)
        if text
    ]
    transaction.run(_INSERT_TEXT, *rows)
    transaction.once(update(threads).where(threads.c.thread_id == thread_id).values(indexed_at=changed_at))


def _as_messages(value: Any) -> list[BaseMessage]:
    if isinstance(value, _DeltaSnapshot):
        value = value.value
    if value is None:
        return []
    try:
        return convert_to_messages(value if isinstance(value, list | tuple) else [value])
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise PersistenceError(
            f"the 'messages' of this conversation are none that LangChain knows, and cannot be shown: {said}"
        ) from error
