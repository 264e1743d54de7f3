"""The messages of a conversation, read from its checkpoints without the graph that made them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage, RemoveMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from sqlalchemy import delete, or_, select, update

from agent.errors import ConflictError, DatabaseError
from agent.persistence import history, reading
from agent.persistence import statements as sql
from agent.persistence.database import Database
from agent.persistence.records import MESSAGES_CHANNEL, Address, storable
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

    One that is damaged, or encrypted with another key, must not stand in the way of the others: there is a
    warning, in which ``doing`` says what it cannot be, and ``None``.
    """
    try:
        found = messages_at(transaction, serde, Address(thread_id, "", None))
    except DatabaseError as error:
        logger.warning("conversation %r cannot be %s: %s", thread_id, doing, error)
        return None
    return found[1] if found else []


def messages_of(
    transaction: Transaction, serde: SerializerProtocol, fetched: reading.Fetched
) -> list[BaseMessage]:
    """The messages of a checkpoint; those that are kept as deltas take further queries."""
    checkpoint = fetched.decode().checkpoint
    if MESSAGES_CHANNEL in checkpoint["channel_values"]:
        return _as_messages(checkpoint["channel_values"][MESSAGES_CHANNEL])
    if MESSAGES_CHANNEL not in checkpoint["channel_versions"]:
        return []
    here = Address(fetched.thread_id, fetched.ns, fetched.checkpoint_id)
    outlines = history.Outlines(serde)
    found = history.collect(transaction, outlines, here, channels=[MESSAGES_CHANNEL])[MESSAGES_CHANNEL]
    messages = _as_messages(found.get("seed", []))
    for _, _, written in found["writes"]:
        messages = merged(messages, written)
    return messages


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
    texts = [(message.type, storable(str(message.text))) for message in messages]
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
    return convert_to_messages(value if isinstance(value, list | tuple) else [value])
