"""``open_checkpointer``: one call from a path or URL to a saver, as ``with`` and as ``async with``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from types import TracebackType

from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol

from agent.errors import ConfigurationError
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
        self._open: list[SQLSaver] = []

    def __enter__(self) -> SQLSaver:
        database = Database(
            database_url(self._where),
            timeout=self._timeout,
            connections=self._connections,
            synchronous=self._synchronous,
        )
        self._open.append(SQLSaver(database, serde=self._serde))
        return self._open[-1]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.pop().database.close()

    async def __aenter__(self) -> SQLSaver:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)


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
        ConfigurationError: A key of another length, or both a key and a cipher. On entry: not a path or URL
            that can be used.
        MissingExtraError: A key is given, and pycryptodome is not installed.
        DatabaseError: On entry: it cannot be opened, or is of a newer version.
    """
    serde: SerializerProtocol = StrictSerializer(allowed_types=allowed_types)
    if encryption_key is not None:
        if cipher is not None:
            raise ConfigurationError("give encryption_key= or cipher=, not both")
        cipher = aes_cipher(encryption_key)
    if cipher is not None:
        serde = encrypted(serde, cipher)
    return OpenCheckpointer(
        url, serde=serde, timeout=timeout, connections=connections, synchronous=synchronous
    )
