"""Taking turns on one conversation: a run that claims it lets others who claim it wait.

Without a claim, of two writers one wins and the other gets a :class:`~agent.errors.ConflictError` when it
stores its first step. That loses nothing, but a model may have answered for nothing. A claim is held for a
run, and ends with the process that holds it, however that ends: it is a lock of the operating system on a
byte of a file beside the SQLite database, or a session's advisory lock in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol
from weakref import WeakKeyDictionary

from agent.errors import ConflictError, DatabaseError
from agent.persistence import postgres
from agent.persistence.cancelling import taken
from agent.persistence.database import Database

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2
"""Seconds between attempts."""
_SUFFIX = "-turns"
_IN_MEMORY: WeakKeyDictionary[Database, dict[str, threading.Lock]] = WeakKeyDictionary()
_IN_MEMORY_LOCK = threading.Lock()


class Lock(Protocol):
    """A lock that can be tried."""

    def acquire(self) -> bool:
        """Take it, if nobody has it.

        Raises:
            DatabaseError: It cannot be asked for.
        """

    def release(self) -> None:
        """Give it back."""


class Turn:
    """A claim on a conversation, as ``with`` and as ``async with``.

    Args:
        lock: What is held.
        thread_id: Of which conversation.
        timeout: Seconds to wait for others.
    """

    def __init__(self, lock: Lock, *, thread_id: str, timeout: float) -> None:
        self._lock = lock
        self._thread_id = thread_id
        self._timeout = timeout

    def __enter__(self) -> None:
        for pause in self._pauses():
            if self._lock.acquire():
                return
            time.sleep(pause)
        raise self._conflict()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        for pause in self._pauses():
            if await taken(self._lock.acquire, self._give_back):
                return
            await asyncio.sleep(pause)
        raise self._conflict()

    async def __aexit__(self, *_: object) -> None:
        # Whoever waits for it may be cancelled; the release must not be.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._lock.release))

    def _give_back(self, got: bool) -> None:
        if got:
            self._lock.release()

    def _pauses(self) -> Iterator[float]:
        until = time.monotonic() + self._timeout
        pause = _SHORTEST_PAUSE
        yield pause
        while time.monotonic() < until:
            yield pause
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _conflict(self) -> ConflictError:
        return ConflictError(
            f"another run has been working on conversation {self._thread_id!r} for {self._timeout:g} s: "
            "wait for it, or raise timeout="
        )


def claim(database: Database, thread_id: str, *, timeout: float) -> Turn:
    """A claim on a conversation that is made when it is entered."""
    if database.dialect == "postgresql":
        lock: Lock = _AdvisoryLock(database, _number(thread_id))
    elif database.in_memory:
        with _IN_MEMORY_LOCK:
            inner = _IN_MEMORY.setdefault(database, {}).setdefault(thread_id, threading.Lock())
        lock = _InMemory(inner)
    else:
        lock = _ByteLock(f"{database.url.database}{_SUFFIX}", _number(thread_id))
    return Turn(lock, thread_id=thread_id, timeout=timeout)


def _number(thread_id: str) -> int:
    """A number from 0 to 2**62: two conversations that share one only wait for each other."""
    return (
        int.from_bytes(hashlib.blake2b(thread_id.encode(errors="replace"), digest_size=8).digest(), "big")
        >> 2
    )


class _InMemory:
    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def acquire(self) -> bool:
        return self._lock.acquire(blocking=False)

    def release(self) -> None:
        self._lock.release()


class _ByteLock:
    """A lock on a byte that belongs to an open file and not to a process, so that it holds within one too."""

    def __init__(self, path: str, position: int) -> None:
        self._path = path
        # struct flock on 64-bit Linux: type, whence, start, length, process.
        self._request = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)
        self._file: int | None = None

    def acquire(self) -> bool:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, self._request)
            except OSError:
                os.close(file)
                raise
        except BlockingIOError:
            return False
        except OSError as error:
            raise DatabaseError(
                f"no conversation can be claimed: {self._path} cannot be locked: {error.strerror or error}. "
                "Check who owns it and its directory"
            ) from error
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _AdvisoryLock:
    """A session's lock on a connection of its own, so that long runs do not use up the pool."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._number = number
        self._close: Callable[[], None] | None = None

    def acquire(self) -> bool:
        connection = self._database.own_connection()
        locked = False
        try:
            answer = connection.execute("SELECT pg_try_advisory_lock(%s)", (self._number,)).fetchone()
            locked = bool(answer[0])
        except connection.Error as error:
            raise DatabaseError(f"no conversation can be claimed: {postgres.explain(error)}") from error
        finally:
            if not locked:
                connection.close()
        self._close = connection.close
        return locked

    def release(self) -> None:
        if self._close is not None:
            self._close()
            self._close = None
