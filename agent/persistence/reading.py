"""From rows to checkpoint tuples: a page of checkpoints takes four queries, however many rows it has.

Rows are fetched inside the transaction and decoded after it, so that a long decode holds nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.persistence import statements as sql
from agent.persistence.dialects import from_json
from agent.persistence.elements import ChannelKey, Decoded, Elements, Encoded, Rows, fetch_elements
from agent.persistence.lists import LIST, Manifest
from agent.persistence.records import Address, join, stored_versions
from agent.persistence.transactions import Record, Transaction

ChannelVersion = tuple[str, str, str, str]
"""Thread, namespace, channel, version."""


@dataclass(frozen=True)
class Values:
    """The stored values that some checkpoints refer to, decoded at most once each."""

    serde: SerializerProtocol
    channels: Mapping[ChannelVersion, Encoded]
    items: Mapping[ChannelKey, Elements]
    _elements: dict[ChannelKey, Decoded] = field(default_factory=dict)

    def of(self, thread_id: str, ns: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """The value of each channel at its version; a version that was never stored is left out."""
        found = {}
        for name, version in versions.items():
            encoded = self.channels.get((thread_id, ns, name, version))
            if encoded is not None:
                found[name] = self._decode((thread_id, ns, name), encoded)
        return found

    def _decode(self, key: ChannelKey, encoded: Encoded) -> Any:
        kind, data = encoded
        if kind != LIST:
            return self.serde.loads_typed(encoded)
        if key not in self._elements:
            self._elements[key] = self.items[key].decode(self.serde)
        return Manifest.load(data).build(self._elements[key])


@dataclass(frozen=True)
class Fetched:
    """One checkpoint, fetched and not yet decoded."""

    thread_id: str
    ns: str
    checkpoint_id: str
    parent_id: str | None
    body: dict[str, Any]
    metadata: Any
    writes: Sequence[tuple[str, str, Encoded]]
    """Task, channel and value, in the order in which the run would apply them."""
    values: Values

    def decode(self) -> CheckpointTuple:
        """The checkpoint as LangGraph wants it."""
        address = Address(self.thread_id, self.ns, self.checkpoint_id)
        load = self.values.serde.loads_typed
        parent: RunnableConfig | None = address.config(self.parent_id) if self.parent_id else None
        return CheckpointTuple(
            config=address.config(),
            checkpoint=join(self.body, self.values.of(self.thread_id, self.ns, stored_versions(self.body))),
            metadata=self.metadata,
            parent_config=parent,
            pending_writes=[(task_id, channel, load(encoded)) for task_id, channel, encoded in self.writes],
        )


def fetch(transaction: Transaction, serde: SerializerProtocol, address: Address) -> Fetched | None:
    """The checkpoint of that address; without an id, the newest."""
    key = address.key()
    asked = (sql.LATEST_CHECKPOINT, key), (sql.LATEST_WRITES, key)
    if address.checkpoint_id:
        key["checkpoint_id"] = address.checkpoint_id
        asked = (sql.CHECKPOINT, key), (sql.CHECKPOINT_WRITES, key)
    rows, written = transaction.together(*asked)
    found = _complete(transaction, serde, rows, written)
    return found[0] if found else None


def complete(transaction: Transaction, serde: SerializerProtocol, rows: Sequence[Record]) -> list[Fetched]:
    """Fetch what belongs to these checkpoint rows: values, list elements, writes."""
    if not rows:
        return []
    threads, namespaces, ids = ([*set(column)] for column in zip(*(row[:3] for row in rows), strict=True))
    several = {"thread_ids": threads, "namespaces": namespaces, "checkpoint_ids": ids}
    return _complete(transaction, serde, rows, transaction.all(sql.WRITES, several))


def _complete(
    transaction: Transaction, serde: SerializerProtocol, rows: Sequence[Record], written: Sequence[Record]
) -> list[Fetched]:
    if not rows:
        return []
    bodies = [serde.loads_typed((kind, body)) for *_, kind, body, _ in rows]
    wanted = {
        (thread_id, ns, name, version)
        for (thread_id, ns, *_), body in zip(rows, bodies, strict=True)
        for name, version in stored_versions(body).items()
    }
    values = fetch_values(transaction, serde, wanted)
    writes = _by_checkpoint(written)
    return [
        Fetched(
            thread_id=thread_id,
            ns=ns,
            checkpoint_id=checkpoint_id,
            parent_id=parent_id,
            body=body,
            metadata=from_json(metadata),
            writes=writes.get((thread_id, ns, checkpoint_id), ()),
            values=values,
        )
        for (thread_id, ns, checkpoint_id, parent_id, _, _, metadata), body in zip(rows, bodies, strict=True)
    ]


def fetch_values(
    transaction: Transaction, serde: SerializerProtocol, wanted: Iterable[ChannelVersion]
) -> Values:
    """Fetch stored values by thread, namespace, channel and version, with the elements of lists."""
    wanted = set(wanted)
    rows = transaction.all(sql.CHANNELS, of_channels(wanted)) if wanted else []
    return values_from(transaction, serde, rows, wanted=wanted)


def of_channels(wanted: Collection[ChannelVersion]) -> dict[str, list[str]]:
    """The parameters of the query for these values, which must not be none at all."""
    names = ("thread_ids", "namespaces", "names", "versions")
    return dict(zip(names, ([*set(column)] for column in zip(*wanted, strict=True)), strict=True))


def values_from(
    transaction: Transaction,
    serde: SerializerProtocol,
    rows: Sequence[Record],
    *,
    wanted: Collection[ChannelVersion],
) -> Values:
    """The values that are wanted, from the rows that the query found, with the elements of lists."""
    found = {(*key,): (kind, data) for *key, kind, data in rows}
    channels = {key: found[key] for key in wanted if key in found}
    return Values(serde=serde, channels=channels, items=_items(transaction, serde, channels))


def _items(
    transaction: Transaction,
    serde: SerializerProtocol,
    channels: Mapping[ChannelVersion, Encoded],
) -> Mapping[ChannelKey, Elements]:
    keys: set[ChannelKey] = set()
    manifests = []
    for (thread_id, ns, channel, _), (kind, data) in channels.items():
        if kind == LIST:
            keys.add((thread_id, ns, channel))
            manifests.append(Manifest.load(data))
    if not keys:
        return {}
    bounds = {"first": min(each.first for each in manifests), "last": max(each.last for each in manifests)}
    if len(keys) == 1:  # nearly always: one conversation, one list of messages
        [key] = keys
        return {key: fetch_elements(transaction, serde, key, **bounds)}
    found: dict[ChannelKey, dict[int, Encoded]] = {key: {} for key in keys}
    threads, namespaces, names = ([*set(column)] for column in zip(*keys, strict=True))
    several = {"thread_ids": threads, "namespaces": namespaces, "names": names, **bounds}
    for thread_id, ns, channel, number, kind, data in transaction.all(sql.ITEMS, several):
        if (elements := found.get((thread_id, ns, channel))) is not None:
            elements[number] = (kind, data)
    return {key: Rows(elements) for key, elements in found.items()}


def _by_checkpoint(written: Sequence[Record]) -> Mapping[Record, Sequence[tuple[str, str, Encoded]]]:
    found: dict[Record, list[tuple[str, str, Encoded]]] = defaultdict(list)
    for *key, _, task_id, _, channel, kind, data in in_order(written):
        found[tuple(key)].append((task_id, channel, (kind, data)))
    return found


def in_order(writes: Sequence[Record]) -> Sequence[Record]:
    """Rows of the writes statements in the order in which a run applies them, within each checkpoint."""
    return sorted(writes, key=lambda row: writes_sort_key(row[3], row[4], row[5]))
