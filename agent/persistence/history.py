"""What a ``DeltaChannel`` is rebuilt from: the nearest stored value up the parent chain, and writes since."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.persistence import statements as sql
from agent.persistence.elements import Encoded
from agent.persistence.reading import in_order, of_channels, values_from
from agent.persistence.records import Address, stored_versions
from agent.persistence.serde import StrictSerializer
from agent.persistence.transactions import Record, Transaction

_FIRST_STEP, _STEP = {"sqlite": 32, "postgresql": 128}, 256
"""Ancestors per query, at first and at most: more than LangGraph's usual distance between two snapshots. A
row too many costs less than a trip to a server."""
_OUTLINES = 4096
"""Bodies of checkpoints, of about a kilobyte, whose outlines are remembered."""


@dataclass(frozen=True)
class Outline:
    """Where a checkpoint's body says that the values of its channels are."""

    stored: Mapping[str, str]
    """The versions of those that are stored by themselves."""
    inline: frozenset[str]
    """The names of those that are in the body."""


class Outlines:
    """What bodies say, remembered: a conversation that goes on reads the same ones again at every turn.

    The memory is keyed by the body as stored, so that it cannot be out of date.

    Args:
        serde: The saver's serializer.
    """

    def __init__(self, serde: SerializerProtocol) -> None:
        self.serde = serde
        self.of = functools.lru_cache(maxsize=_OUTLINES)(self._read)

    def _read(self, encoded: Encoded) -> Outline:
        body = self.serde.loads_typed(encoded)
        return Outline(stored=stored_versions(body), inline=frozenset(body["channel_values"]))


def collect(
    transaction: Transaction, outlines: Outlines, address: Address, *, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """Collect the history of some channels at a checkpoint, exclusive of its own writes.

    The writes stored under an ancestor lead to its child, so those of the ancestor that holds the nearest
    value count as well. They come oldest first, and within a checkpoint in the order in which the run applied
    them.
    """
    serde = outlines.serde
    chains: dict[str, list[str]] = {name: [] for name in channels}
    seeds: dict[str, Any] = {}
    stored: dict[str, str] = {}
    open_channels = set(channels)
    for checkpoint_id, encoded in ancestors(transaction, address):
        outline = outlines.of(encoded)
        for name in sorted(open_channels):
            chains[name].append(checkpoint_id)
            if name in outline.stored:
                stored[name] = outline.stored[name]
                open_channels.discard(name)
            elif name in outline.inline:
                seeds[name] = serde.loads_typed(encoded)["channel_values"][name]
                open_channels.discard(name)
        if not open_channels:
            break
    wanted = [(address.thread_id, address.ns, name, version) for name, version in stored.items()]
    written, *found = transaction.together(
        (sql.CHANNEL_WRITES, _span(address, chains)),
        *([(sql.CHANNELS, of_channels(wanted))] if wanted else []),
    )
    if found:
        values = values_from(transaction, serde, found[0], wanted=wanted)
        seeds |= values.of(address.thread_id, address.ns, stored)
    writes = _writes(written, chains)
    return {name: _entry(serde, name, chains[name], writes, seeds) for name in channels}


def ancestors(
    transaction: Transaction, address: Address, *, own: bool = False
) -> Iterator[tuple[str, Encoded]]:
    """Walk up from a checkpoint, nearest ancestor first; ``own`` includes the checkpoint itself.

    Ids sort by time, so the ancestors are mostly what comes before, which is read as one range. Where many
    branches lie between, the database follows the chain instead. Neither relies on the order of the ids.
    """
    checkpoint_id = address.checkpoint_id or transaction.value(sql.LATEST_ID, address.key())
    seen: set[str] = set()
    cursor: str | None = checkpoint_id
    statement, depth = sql.PRECEDING, _FIRST_STEP[transaction.dialect]
    while cursor is not None and cursor not in seen:
        rows = transaction.all(statement, {**address.key(), "checkpoint_id": cursor, "depth": depth})
        if not rows or rows[0][0] != cursor:
            return  # it was deleted
        followed = 0
        for found_id, parent_id, kind, body in rows:
            if found_id != cursor or found_id in seen:
                continue  # another branch; or one stored again under its own descendant, which makes a loop
            followed += 1
            seen.add(found_id)
            if own or found_id != checkpoint_id:
                yield found_id, (kind, body)
            cursor = parent_id
        statement = sql.PRECEDING if 2 * followed >= len(rows) else sql.ANCESTORS
        depth = min(2 * depth, _STEP)


def _span(address: Address, chains: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The range of checkpoints that has all of the chains, and the writes of other branches of that time."""
    ids = [checkpoint_id for chain in chains.values() for checkpoint_id in chain] or [""]
    return {**address.key(), "first": min(ids), "last": max(ids), "names": list(chains)}


def _writes(
    written: Sequence[Record], chains: Mapping[str, Sequence[str]]
) -> Mapping[tuple[str, str], Sequence[tuple[str, Encoded]]]:
    ids = {checkpoint_id for chain in chains.values() for checkpoint_id in chain}
    found: dict[tuple[str, str], list[tuple[str, Encoded]]] = {}
    for _, _, checkpoint_id, _, task_id, _, channel, kind, data in in_order(written):
        if checkpoint_id in ids:
            found.setdefault((channel, checkpoint_id), []).append((task_id, (kind, data)))
    return found


def _entry(
    serde: SerializerProtocol,
    name: str,
    chain: Sequence[str],
    writes: Mapping[tuple[str, str], Sequence[tuple[str, Encoded]]],
    seeds: Mapping[str, Any],
) -> DeltaChannelHistory:
    found = [each for checkpoint_id in reversed(chain) for each in writes.get((name, checkpoint_id), ())]
    values = _decode(serde, [encoded for _, encoded in found])
    entry: DeltaChannelHistory = {
        "writes": [(task_id, name, value) for (task_id, _), value in zip(found, values, strict=True)]
    }
    if name in seeds:
        entry["seed"] = seeds[name]
    return entry


def _decode(serde: SerializerProtocol, stored: Sequence[Encoded]) -> list[Any]:
    if isinstance(serde, StrictSerializer):
        return serde.loads_several(stored)
    return [serde.loads_typed(each) for each in stored]
