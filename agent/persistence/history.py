"""What a ``DeltaChannel`` is rebuilt from: the nearest stored value up the parent chain, and writes since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.persistence import statements as sql
from agent.persistence.elements import Encoded
from agent.persistence.reading import fetch_values, in_order
from agent.persistence.records import Address, stored_versions
from agent.persistence.transactions import Transaction

_STEP = 256
"""Ancestors per query: more than LangGraph's usual distance between two snapshots of a channel."""


def collect(
    transaction: Transaction, serde: SerializerProtocol, address: Address, *, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """Collect the history of some channels at a checkpoint, exclusive of its own writes.

    The writes stored under an ancestor lead to its child, so those of the ancestor that holds the nearest
    value count as well. They come oldest first, and within a checkpoint in the order in which the run applied
    them.
    """
    chains: dict[str, list[str]] = {name: [] for name in channels}
    seeds: dict[str, Any] = {}
    stored: dict[str, str] = {}
    open_channels = set(channels)
    for checkpoint_id, body in ancestors(transaction, serde, address):
        versions, inline = stored_versions(body), body["channel_values"]
        for name in sorted(open_channels):
            chains[name].append(checkpoint_id)
            if name in versions:
                stored[name] = versions[name]
                open_channels.discard(name)
            elif name in inline:
                seeds[name] = inline[name]
                open_channels.discard(name)
        if not open_channels:
            break
    wanted = [(address.thread_id, address.ns, name, version) for name, version in stored.items()]
    seeds |= fetch_values(transaction, serde, wanted).of(address.thread_id, address.ns, stored)
    writes = _writes(transaction, address, chains)
    return {name: _entry(serde, name, chains[name], writes, seeds) for name in channels}


def ancestors(
    transaction: Transaction, serde: SerializerProtocol, address: Address, *, own: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk up from a checkpoint, nearest ancestor first; ``own`` includes the checkpoint itself."""
    checkpoint_id = address.checkpoint_id or transaction.value(sql.LATEST_ID, address.key())
    seen: set[str] = set()
    cursor: str | None = checkpoint_id
    while cursor is not None and cursor not in seen:
        here = {**address.key(), "checkpoint_id": cursor, "depth": _STEP}
        cursor = None
        # The first row of every query but the first repeats the last of the query before.
        for found_id, parent_id, kind, body in transaction.all(sql.ANCESTORS, here):
            if found_id in seen:
                continue  # a checkpoint stored again under its own descendant makes a loop
            seen.add(found_id)
            if own or found_id != checkpoint_id:
                yield found_id, serde.loads_typed((kind, body))
            cursor = parent_id


def _writes(
    transaction: Transaction, address: Address, chains: Mapping[str, Sequence[str]]
) -> Mapping[tuple[str, str], Sequence[tuple[str, Encoded]]]:
    ids = list(dict.fromkeys(checkpoint_id for chain in chains.values() for checkpoint_id in chain))
    found: dict[tuple[str, str], list[tuple[str, Encoded]]] = {}
    for start in range(0, len(ids), sql.MAX_IN):
        parameters = {
            "thread_ids": [address.thread_id],
            "namespaces": [address.ns],
            "checkpoint_ids": ids[start : start + sql.MAX_IN],
            "names": list(chains),
        }
        rows = in_order(transaction.all(sql.CHANNEL_WRITES, parameters))
        for _, _, checkpoint_id, _, task_id, _, channel, kind, data in rows:
            found.setdefault((channel, checkpoint_id), []).append((task_id, (kind, data)))
    return found


def _entry(
    serde: SerializerProtocol,
    name: str,
    chain: Sequence[str],
    writes: Mapping[tuple[str, str], Sequence[tuple[str, Encoded]]],
    seeds: Mapping[str, Any],
) -> DeltaChannelHistory:
    entry: DeltaChannelHistory = {
        "writes": [
            (task_id, name, serde.loads_typed(encoded))
            for checkpoint_id in reversed(chain)
            for task_id, encoded in writes.get((name, checkpoint_id), ())
        ]
    }
    if name in seeds:
        entry["seed"] = seeds[name]
    return entry
