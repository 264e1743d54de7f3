"""Long lists, kept element by element: a list that grows by two costs two elements, at every version.

A version of a list is a *manifest*: runs of element numbers, and a digest of the whole. Storing the next
version means serializing its elements, finding by the digest that it begins with the newest manifest, and
inserting the rest. A list that was edited, trimmed or forked fails that test; then its elements are looked up
one by one and only unknown ones are inserted. Elements are never changed, so versions can share them.

Nearly always the writer has stored the beginning itself: it remembers how long that was, and serializes so
many messages in one go. Whether they are still the same, the digest tells; nothing else relies on the memory.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from agent.errors import DatabaseError
from agent.persistence import statements as sql
from agent.persistence.elements import Decoded, Encoded
from agent.persistence.serde import MESSAGE, StrictSerializer
from agent.persistence.tables import items
from agent.persistence.transactions import Record, Transaction

LIST: Final = "list"
_WORTH_AN_ELEMENT: Final = 48
"""Bytes per element on average, below which a list is kept in one piece: its keys would outweigh it."""

_DIGEST_BYTES: Final = 16
_REMEMBERED: Final = 20_000
"""Lists of which the length is remembered."""
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
        """From what :meth:`dump` wrote.

        Raises:
            DatabaseError: It is damaged.
        """
        try:
            snapshot, runs, digest = ormsgpack.unpackb(stored)
            return cls(snapshot=snapshot, runs=tuple((start, count) for start, count in runs), digest=digest)
        except (TypeError, ValueError) as error:
            raise DatabaseError(f"the outline of a stored list is damaged: {error}") from error

    def build(self, elements: Decoded) -> Any:
        """The value, from its elements."""
        value = [element for start, count in self.runs for element in elements.run(start, count)]
        return _DeltaSnapshot(value) if self.snapshot else value


class Lengths:
    """How long the lists were that this process has stored last: a guess, which may be wrong."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], int] = {}

    def of(self, key: Mapping[str, str]) -> int:
        """Of the list with this thread, namespace and channel; 0 if nothing is known."""
        return self._known.get((*key.values(),), 0)

    def remember(self, key: Mapping[str, str], length: int) -> None:
        """It is so long now."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[(*key.values(),)] = length


@dataclass(frozen=True)
class EncodedList:
    """A list whose elements are serialized and not yet stored."""

    snapshot: bool
    elements: Sequence[Any]
    """The elements themselves."""
    known: int
    """How many of them are taken for stored."""
    known_digest: bytes
    """Of these."""
    rest: tuple[Encoded, ...]
    """The others before encryption."""
    digest: bytes
    """Of the whole list."""

    def plain(self, serde: Any) -> Sequence[Encoded]:
        """All elements before encryption: what is compared."""
        return (*map(serde.dumps_typed, self.elements[: self.known]), *self.rest)


def encode(serde: Any, value: Any, *, known: int = 0) -> EncodedList | None:
    """Serialize the elements of a list that is worth keeping in elements; ``None`` for any other value.

    Args:
        serde: The saver's serializer.
        value: What may be a list.
        known: How many of its first elements are taken for stored.
    """
    snapshot = isinstance(value, _DeltaSnapshot)
    elements = value.value if snapshot else value
    if type(elements) is not list or not elements:
        return None
    plain = _plain(serde)
    beginning = None
    if 0 < known <= len(elements) and isinstance(plain, StrictSerializer):
        beginning = plain.dumps_messages(elements[:known])
    if beginning is None:
        known, beginning = 0, b""
    rest = tuple(map(plain.dumps_typed, elements[known:]))
    if len(beginning) + sum(len(data) for _, data in rest) < _WORTH_AN_ELEMENT * len(elements):
        return None
    digest = _Digest(beginning)
    return EncodedList(snapshot, elements, known, digest.of(()), rest, digest.of(rest))


def store(
    transaction: Transaction, serde: Any, encoded: EncodedList, *, key: dict[str, str], state: Record
) -> Manifest:
    """Insert the elements that are not there yet, and say how the list is put together.

    Args:
        transaction: A writing one.
        serde: The saver's serializer.
        encoded: From :func:`encode`.
        key: ``thread_id``, ``ns`` and ``channel``.
        state: What :data:`agent.persistence.statements.LIST_STATE` found in this transaction.
    """
    stored, last = state
    base = Manifest.load(stored) if stored is not None else None
    runs: Sequence[tuple[int, int]]
    if base and (base.length, base.digest) == (encoded.known, encoded.known_digest):
        new = [*zip(encoded.elements[encoded.known :], encoded.rest, strict=True)]
        runs = [*base.runs, (last + 1, len(new))]
    else:
        plain = encoded.plain(_plain(serde))
        numbers = [*_known(transaction, serde, plain, base=base, key=key)]
        numbers += [None] * (len(plain) - len(numbers))
        every = zip(encoded.elements, plain, numbers, strict=True)
        new = [(element, finished) for element, finished, number in every if number is None]
        following = itertools.count(last + 1)
        runs = [(next(following) if number is None else number, 1) for number in numbers]
    encrypted = _plain(serde) is not serde
    rows = []
    for number, (element, finished) in enumerate(new, last + 1):
        kind, data = serde.dumps_typed(element) if encrypted else finished
        rows.append({**key, "seq": number, "type": kind, "value": data})
    transaction.run(_INSERT, *rows)
    return Manifest(snapshot=encoded.snapshot, runs=tuple(_runs(runs)), digest=encoded.digest)


def _known(
    transaction: Transaction,
    serde: Any,
    plain: Sequence[Encoded],
    *,
    base: Manifest | None,
    key: dict[str, str],
) -> Iterable[int | None]:
    """The numbers of the elements that are stored, as far as they are looked for."""
    if base is None:
        return ()
    if _Digest().of(plain[: base.length]) == base.digest:
        return base.numbers()
    return _look_up(transaction, serde, plain, base=base, key=key)


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


def _plain(serde: Any) -> Any:
    return serde.serde if isinstance(serde, EncryptedSerializer) else serde


class _Digest:
    """Of a list that is given bit by bit, so that a beginning need not be read again for the whole.

    Args:
        beginning: Messages as serialized, end to end.
    """

    def __init__(self, beginning: bytes = b"") -> None:
        # With the instructions that processors have for it, the quickest.
        self._hash = hashlib.sha256(beginning)

    def of(self, more: Iterable[Encoded]) -> bytes:
        """The digest of all that was given, these elements included."""
        for kind, data in more:
            self._hash.update(data if kind == MESSAGE else ormsgpack.packb((kind, data)))
        return self._hash.digest()[:_DIGEST_BYTES]


def _runs(pieces: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Pieces without gaps between them joined, and empty ones left out."""
    start = length = 0
    for first, count in pieces:
        if length and first == start + length:
            length += count
            continue
        if length:
            yield start, length
        start, length = first, count
    if length:
        yield start, length
