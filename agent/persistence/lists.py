"""Long lists, kept element by element: a list that grows by two costs two elements, at every version.

A version of a list is a *manifest*: runs of element numbers, and a digest of the whole. Storing the next
version means serializing its elements, finding by the digest that it begins with the newest manifest, and
inserting the rest. A list that was edited, trimmed or forked fails that test; then its elements are looked up
one by one and only unknown ones are inserted. Elements are never changed, so versions can share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from agent.persistence import statements as sql
from agent.persistence.elements import Decoded, Encoded
from agent.persistence.tables import items
from agent.persistence.transactions import Transaction

LIST: Final = "list"
_WORTH_AN_ELEMENT: Final = 48
"""Bytes per element on average, below which a list is kept in one piece: its keys would outweigh it."""

_DIGEST_BYTES: Final = 16
_INSERT = items.insert()


@dataclass(frozen=True)
class Manifest:
    """How one version of a list is put together."""

    snapshot: bool
    """Whether the value is the snapshot of a ``DeltaChannel`` rather than the list itself."""
    runs: tuple[tuple[int, int], ...]
    """``(first number, how many)``, in order."""
    digest: bytes
    """Of all elements as serialized, to recognise the list as the beginning of a longer one."""

    @property
    def length(self) -> int:
        """How many elements the list has."""
        return sum(count for _, count in self.runs)

    @property
    def first(self) -> int:
        """The lowest element number in use."""
        return min(start for start, _ in self.runs)

    @property
    def last(self) -> int:
        """The highest element number in use."""
        return max(start + count - 1 for start, count in self.runs)

    def numbers(self) -> Iterator[int]:
        """The element numbers in the order of the list."""
        for start, count in self.runs:
            yield from range(start, start + count)

    def dump(self) -> bytes:
        """As stored."""
        return ormsgpack.packb((self.snapshot, self.runs, self.digest))

    @classmethod
    def load(cls, stored: bytes) -> Manifest:
        """From what :meth:`dump` wrote."""
        snapshot, runs, digest = ormsgpack.unpackb(stored)
        return cls(snapshot=snapshot, runs=tuple((start, count) for start, count in runs), digest=digest)

    def build(self, elements: Decoded) -> Any:
        """The value, from its elements."""
        value = [element for start, count in self.runs for element in elements.run(start, count)]
        return _DeltaSnapshot(value) if self.snapshot else value


@dataclass(frozen=True)
class EncodedList:
    """A list whose elements are serialized and not yet stored."""

    snapshot: bool
    plain: tuple[Encoded, ...]
    """Elements before encryption: what is compared."""
    elements: Sequence[Any]
    """The elements themselves."""


def encode(serde: Any, value: Any) -> EncodedList | None:
    """Serialize the elements of a list that is worth keeping in elements; ``None`` for any other value."""
    snapshot = isinstance(value, _DeltaSnapshot)
    elements = value.value if snapshot else value
    if type(elements) is not list or not elements:
        return None
    dump = _plain(serde).dumps_typed
    plain = tuple(dump(element) for element in elements)
    if sum(len(data) for _, data in plain) < _WORTH_AN_ELEMENT * len(plain):
        return None
    return EncodedList(snapshot=snapshot, plain=plain, elements=elements)


def store(transaction: Transaction, serde: Any, encoded: EncodedList, *, key: dict[str, str]) -> Manifest:
    """Insert the elements that are not there yet, and say how the list is put together.

    Args:
        transaction: A writing one.
        serde: The saver's serializer.
        encoded: From :func:`encode`.
        key: ``thread_id``, ``ns`` and ``channel``.
    """
    stored, last = transaction.all(sql.LIST_STATE, key)[0]
    base = Manifest.load(stored) if stored is not None else None
    known: list[int | None] = []
    digest = _Digest()
    if base and digest.of(encoded.plain[: base.length]) == base.digest:
        known.extend(base.numbers())
    elif base:
        known.extend(_look_up(transaction, serde, encoded.plain, base=base, key=key))
    numbers = _number(transaction, serde, encoded, known=known, key=key, following=last + 1)
    rest = encoded.plain[base.length :] if base else encoded.plain
    return Manifest(snapshot=encoded.snapshot, runs=tuple(_runs(numbers)), digest=digest.of(rest))


def _number(
    transaction: Transaction,
    serde: Any,
    encoded: EncodedList,
    *,
    known: Sequence[int | None],
    key: dict[str, str],
    following: int,
) -> list[int]:
    """The number of every element, inserting those that have none yet."""
    rows = []
    numbers = []
    for position in range(len(encoded.plain)):
        number = known[position] if position < len(known) else None
        if number is None:
            kind, data = _finish(serde, encoded, position)
            rows.append({**key, "seq": following, "type": kind, "value": data})
            number, following = following, following + 1
        numbers.append(number)
    transaction.run(_INSERT, *rows)
    return numbers


def _look_up(
    transaction: Transaction,
    serde: Any,
    plain: Sequence[Encoded],
    *,
    base: Manifest,
    key: dict[str, str],
) -> list[int | None]:
    inner = _plain(serde)
    known: dict[Encoded, int] = {}
    present = {**key, "first": base.first, "last": base.last}
    for number, kind, data in transaction.all(sql.ITEM_RANGE, present):
        element = (kind, data) if inner is serde else inner.dumps_typed(serde.loads_typed((kind, data)))
        known.setdefault(element, number)
    return [known.get(element) for element in plain]


def _finish(serde: Any, encoded: EncodedList, position: int) -> Encoded:
    if _plain(serde) is serde:
        return encoded.plain[position]
    finished: Encoded = serde.dumps_typed(encoded.elements[position])
    return finished


def _plain(serde: Any) -> Any:
    return serde.serde if isinstance(serde, EncryptedSerializer) else serde


class _Digest:
    """Of a list that is given bit by bit, so that a beginning need not be read again for the whole."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()  # with the instructions that processors have for it, the quickest

    def of(self, more: Sequence[Encoded]) -> bytes:
        """The digest of all that was given, these elements included."""
        if more:
            self._hash.update(ormsgpack.packb(more)[_header(len(more)) :])
        return self._hash.digest()[:_DIGEST_BYTES]


def _header(count: int) -> int:
    """Bytes in front of the elements of an array in msgpack."""
    return 1 if count < 1 << 4 else 3 if count < 1 << 16 else 5


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    start = length = 0
    for number in numbers:
        if length and number == start + length:
            length += 1
            continue
        if length:
            yield start, length
        start, length = number, 1
    if length:
        yield start, length
