"""From LangGraph's checkpoints and writes to rows: prepared outside of a transaction, stored inside one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.errors import ConfigurationError, ConflictError
from agent.persistence import lists
from agent.persistence import statements as sql
from agent.persistence.dialects import to_json
from agent.persistence.elements import Encoded
from agent.persistence.heads import Heads
from agent.persistence.records import (
    MESSAGES_CHANNEL,
    Address,
    count_and_title,
    messages_added,
    now,
    split,
    status_after,
    storable,
)
from agent.persistence.transactions import Record, Transaction

Work = Callable[[Transaction], None]
_Value = lists.EncodedList | Encoded


class CheckpointWriter:
    """Prepares what the saver stores.

    Args:
        serde: How values become bytes.
        dialect: Of the database.
        heads: What the saver handed out as the newest checkpoints.
        titles: Whether to keep a title that is taken from the messages.
    """

    def __init__(self, *, serde: SerializerProtocol, dialect: str, heads: Heads, titles: bool) -> None:
        self._serde = serde
        self._inserts = sql.Inserts(dialect)
        self._heads = heads
        self._titles = titles
        self._lengths = lists.Lengths()

    def checkpoint(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Work:
        """The work of storing a checkpoint; it refuses to fork a thread silently."""
        address = Address.of(config)
        described = get_serializable_checkpoint_metadata(config, metadata)
        body, stored = split(checkpoint)
        kind, data = self._serde.dumps_typed(body)
        row = {
            **address.key(),
            "checkpoint_id": checkpoint["id"],
            "parent_id": address.checkpoint_id,
            "run_id": described.get("run_id"),
            "type": kind,
            "body": data,
            "metadata": storable(to_json(described)),
        }
        values = checkpoint["channel_values"]
        keys = {name: {**address.key(), "channel": name} for name in new_versions if name in stored}
        encoded = {name: self._encode(key, values[name]) for name, key in keys.items()}
        asked = [
            (sql.LIST_STATE, keys[name])
            for name, value in encoded.items()
            if isinstance(value, lists.EncodedList)
        ]
        adds = MESSAGES_CHANNEL in new_versions and MESSAGES_CHANNEL not in values and not address.ns

        def work(transaction: Transaction) -> None:
            self._touch(transaction, address, checkpoint, adds=adds)
            [(newest,)], *states = transaction.together((sql.LATEST_ID, address.key()), *asked)
            # A subgraph is driven by the run of the root, which is checked; it may start over in a replay.
            if not address.ns and metadata.get("source") != "fork":
                self._refuse_silent_fork(transaction, address, checkpoint["id"], newest=newest)
            self._store_values(transaction, encoded, keys=keys, states=iter(states), versions=stored)
            transaction.run(self._inserts.checkpoint, row)

        return work

    def writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Work:
        """The work of storing what one task has written."""
        address = Address.of(config)
        if address.checkpoint_id is None:
            raise ConfigurationError(f"writes belong to a checkpoint, and this config names none: {config!r}")
        plain: list[dict[str, Any]] = []
        special: list[dict[str, Any]] = []
        for position, (channel, value) in enumerate(writes):
            kind, data = self._serde.dumps_typed(value)
            row = {
                **address.key(),
                "checkpoint_id": address.checkpoint_id,
                "task_id": task_id,
                "idx": WRITES_IDX_MAP.get(channel, position),
                "task_path": task_path,
                "channel": channel,
                "type": kind,
                "value": data,
                "messages": messages_added(value) if channel == MESSAGES_CHANNEL else None,
            }
            (special if channel in WRITES_IDX_MAP else plain).append(row)

        def work(transaction: Transaction) -> None:
            transaction.run(self._inserts.write, *plain)
            transaction.run(self._inserts.special_write, *special)

        return work

    def _touch(
        self, transaction: Transaction, address: Address, checkpoint: Checkpoint, *, adds: bool
    ) -> None:
        """Note the change in the list of threads; on PostgreSQL this also lines up writers of one thread."""
        count, title, status = None, None, ""
        if not address.ns:
            status = status_after(checkpoint)
            count, title = count_and_title(checkpoint)
            title = title if self._titles else None
        time = now()
        row = {
            "thread_id": address.thread_id,
            "title": title,
            "created_at": time,
            "updated_at": time,
            "messages": count,
            "head_id": None if address.ns else checkpoint["id"],
            "status": status,
        }
        if adds:
            step = {"parent_id": address.checkpoint_id, "checkpoint_id": checkpoint["id"]}
            transaction.run(self._inserts.thread_adding, {**row, "of": address.thread_id, **step})
        else:
            transaction.run(self._inserts.thread, row)

    def _refuse_silent_fork(
        self, transaction: Transaction, address: Address, checkpoint_id: str, *, newest: str | None
    ) -> None:
        parent = address.checkpoint_id
        if newest in (None, parent, checkpoint_id):
            return
        if not self._heads.followed(address.thread_id, address.ns, parent):
            return
        sibling = {**address.key(), "parent_id": parent, "checkpoint_id": checkpoint_id}
        if transaction.value(sql.SIBLINGS, sibling) is None:
            return
        raise ConflictError(
            f"another writer has continued conversation {address.thread_id!r} in the meantime (it is now at "
            f"checkpoint {newest}): send the message again to continue from there, or name checkpoint "
            f"{parent or '-'} in the config to fork on purpose"
        )

    def _encode(self, key: Mapping[str, str], value: Any) -> _Value:
        known = self._lengths.of(key)
        return lists.encode(self._serde, value, known=known) or self._serde.dumps_typed(value)

    def _store_values(
        self,
        transaction: Transaction,
        encoded: Mapping[str, _Value],
        *,
        keys: Mapping[str, dict[str, str]],
        states: Iterator[Sequence[Record]],
        versions: Mapping[str, str],
    ) -> None:
        rows = []
        for name, value in encoded.items():
            key = keys[name]
            if isinstance(value, lists.EncodedList):
                [state] = next(states)
                kind, data = (
                    lists.LIST,
                    lists.store(transaction, self._serde, value, key=key, state=state).dump(),
                )
                self._lengths.remember(key, len(value.elements))
            else:
                kind, data = value
            rows.append({**key, "version": versions[name], "type": kind, "value": data})
        transaction.run(self._inserts.channel, *rows)
