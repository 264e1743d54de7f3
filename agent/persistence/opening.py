"""``open_checkpointer``: one call from a path or URL to a saver, as ``with`` and as ``async with``."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Iterable
from types import TracebackType

from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol

from agent.errors import ConfigurationError
from agent.persistence.cancelling import taken
from agent.persistence.database import Database
from agent.persistence.dialects import Synchronous
from agent.persistence.encryption import aes_cipher, encrypted
from agent.persistence.locations import database_url
from agent.persistence.saver import SQLSaver
from agent.persistence.serde import AllowedType, StrictSerializer


class OpenCheckpointer:
    """What :func:`open_checkpointer` returns: enter it, with or without ``async``, to get the saver."""

    def __init__(
        self,
        where: str | os.PathLike[str] | None,
        *,
        serde: SerializerProtocol,
        timeout: float,
        connections: int,
        synchronous: Synchronous,
    ) -> None:
        self._where = where
        self._serde = serde
        self._timeout = timeout
        self._connections = connections
        self._synchronous: Synchronous = synchronous
        self._open: list[tuple[object, SQLSaver]] = []

    def __enter__(self) -> SQLSaver:
        return self._entered(self._database())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._last_of(_entering()).database.close()

    async def __aenter__(self) -> SQLSaver:
        return self._entered(await taken(self._database, Database.close))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._last_of(_entering()).database.close)

    def _database(self) -> Database:
        return Database(
            database_url(self._where),
            timeout=self._timeout,
            connections=self._connections,
            synchronous=self._synchronous,
        )

    def _entered(self, database: Database) -> SQLSaver:
        saver = SQLSaver(database, serde=self._serde)
        self._open.append((_entering(), saver))
        return saver

    def _last_of(self, owner: object) -> SQLSaver:
        """What this task or thread has entered last; others may have entered the same object meanwhile."""
        own = [entry for entry in self._open if entry[0] is owner]
        last = (own or self._open)[-1]
        self._open.remove(last)  # not by its place: others leave meanwhile
        return last[1]


def _entering() -> object:
    """The task that runs here, or else the thread."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


def open_checkpointer(
    url: str | os.PathLike[str] | None = None,
    *,
    allowed_types: Iterable[AllowedType] = (),
    encryption_key: str | bytes | None = None,
    cipher: CipherProtocol | None = None,
    timeout: float = 30.0,
    connections: int = 8,
    synchronous: Synchronous = "normal",
) -> OpenCheckpointer:
    """Open the database that conversations are kept in, creating it if need be.

    Args:
        url: ``None`` for ``conversations.sqlite`` in the user's data directory, a path, ``:memory:``,
            ``sqlite:///…`` or ``postgresql://…``.
        allowed_types: Your own classes that occur in graph states. Others come back as their plain fields: a
            file must not be able to choose which code runs.
        encryption_key: 16, 24 or 32 bytes; encrypts values at rest with AES (extra ``encryption``). Ids,
            tags, metadata and titles given by ``rename`` stay readable. There are no automatic titles and
            **no search**, as an index would give the words away. What was stored without a key stays so.
        cipher: The same with a cipher of your own; see LangGraph's ``EncryptedSerializer``.
        timeout: Seconds to wait for another process that is writing, or for a free connection.
        connections: How many operations may run at once.
        synchronous: SQLite only. ``normal`` keeps every step when the process is killed; ``full`` also when
            the power fails, at the price of one flush to the disk per step.

    Returns:
        A context manager, sync and async, that yields one :class:`~agent.persistence.saver.SQLSaver`.

    Raises:
        ConfigurationError: A key of another length, both a key and a cipher, a number that is none, or a type
            that is none. On entry: not a path or URL that can be used.
        MissingExtraError: A key is given, and pycryptodome is not installed.
        DatabaseError: On entry: it cannot be opened, or is of a newer version.
    """
    if not _is_number(timeout, least=0):
        raise ConfigurationError(f"timeout={timeout!r}: give a number of seconds, 0 or more")
    if not _is_number(connections, least=1) or connections != int(connections):
        raise ConfigurationError(f"connections={connections!r}: give a whole number, 1 or more")
    serde: SerializerProtocol = StrictSerializer(allowed_types=_types(allowed_types))
    if encryption_key is not None:
        if cipher is not None:
            raise ConfigurationError("give encryption_key= or cipher=, not both")
        cipher = aes_cipher(encryption_key)
    if cipher is not None:
        serde = encrypted(serde, cipher)
    return OpenCheckpointer(
        url, serde=serde, timeout=timeout, connections=connections, synchronous=synchronous
    )


def _is_number(value: object, *, least: int) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= least
    )


def _types(given: Iterable[AllowedType]) -> list[AllowedType]:
    types = list(given) if isinstance(given, Iterable) else [given]
    for one in types:
        pair = isinstance(one, tuple) and len(one) == 2 and all(isinstance(part, str) for part in one)
        if not (isinstance(one, type) or pair):
            raise ConfigurationError(f"allowed_types has {one!r}: give classes, or (module, name) of them")
    return types
