"""The elements of stored lists, as they are fetched: row by row, or a long run of messages in one value.

Ten thousand rows cost more than what is in them: the database makes one value of a long run of messages, and
it is decoded in one go. What is no run of messages comes row by row.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.checkpoint.serde.base import SerializerProtocol

from agent.errors import DatabaseError
from agent.persistence import statements as sql
from agent.persistence.serde import MESSAGE, StrictSerializer
from agent.persistence.transactions import Transaction

ChannelKey = tuple[str, str, str]
"""Thread, namespace, channel."""
Encoded = tuple[str, bytes]

_WORTH_JOINING = 32
"""Elements, below which rows are as quick."""


class Decoded(Protocol):
    """Elements of one list, decoded."""

    def run(self, start: int, count: int) -> list[Any]:
        """Those with the numbers from ``start`` on."""


class Elements(Protocol):
    """Elements of one list, fetched and not yet decoded."""

    def decode(self, serde: SerializerProtocol) -> Decoded:
        """Decode all of them, in which the database need not take part."""


@dataclass(frozen=True)
class Rows:
    """Elements of any kind, by number."""

    encoded: Mapping[int, Encoded]

    def decode(self, serde: SerializerProtocol) -> Decoded:
        """Decode one after the other."""
        with _collector_paused():
            return _Numbered({number: serde.loads_typed(each) for number, each in self.encoded.items()})


@dataclass(frozen=True)
class Joined:
    """Messages without a gap between their numbers."""

    first: int
    count: int
    payload: bytes
    """What they were serialized to, end to end."""

    def decode(self, serde: SerializerProtocol) -> Decoded:
        """Decode all at once."""
        assert isinstance(serde, StrictSerializer)
        with _collector_paused():
            return _Gapless(self.first, serde.loads_messages(self.count, self.payload))


@dataclass(frozen=True)
class _Numbered:
    elements: Mapping[int, Any]

    def run(self, start: int, count: int) -> list[Any]:
        try:
            return [self.elements[number] for number in range(start, start + count)]
        except KeyError as error:
            raise DatabaseError(
                f"element {error} of a stored list is missing: the database is damaged"
            ) from None


@dataclass(frozen=True)
class _Gapless:
    first: int
    elements: list[Any]

    def run(self, start: int, count: int) -> list[Any]:
        begin = start - self.first
        return self.elements[begin : begin + count]


def fetch_elements(
    transaction: Transaction, serde: SerializerProtocol, key: ChannelKey, *, first: int, last: int
) -> Elements:
    """Fetch the elements of one list with these numbers, both included."""
    one = {**dict(zip(("thread_id", "ns", "channel"), key, strict=True)), "first": first, "last": last}
    count = last - first + 1
    # Encrypted elements cannot be decoded end to end.
    if count >= _WORTH_JOINING and isinstance(serde, StrictSerializer):
        statement = sql.JOINED_ITEMS[transaction.dialect]
        found = transaction.first(statement, {**one, "kind": MESSAGE})
        if found is not None and (found[0], found[1]) == (count, len(found[2] or b"")):
            return Joined(first=first, count=count, payload=bytes(found[2]))
    rows = transaction.all(sql.ITEM_RANGE, one)
    return Rows({number: (kind, data) for number, kind, data in rows})


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Build many objects that all stay: looking for garbage among them takes half of the time."""
    was_running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_running:
            gc.enable()
