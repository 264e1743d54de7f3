"""A look at a database that neither creates nor migrates nor writes anything."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from agent.errors import DatabaseError
from agent.persistence import postgres, schema
from agent.persistence.dialects import build_engine
from agent.persistence.locations import database_files
from agent.persistence.tables import metadata, revisions

_MAGIC = b"SQLite format 3\x00"
_STEPS = 10_000
"""Of SQLite's virtual machine between two looks at the clock: some hundred microseconds."""


@dataclass(frozen=True)
class Inspection:
    """What a database looks like from outside."""

    revision: str | None
    """Its schema; ``None`` if it has none of ours."""
    size: int
    """Bytes, those of SQLite's side files included."""
    foreign: tuple[str, ...] = ()
    """Tables of ours by name in a database without our schema: they are another program's."""
    damage: str | None = None
    """What the database says is wrong with it."""
    checked: bool = True
    """Whether the check came to its end in the time that it had."""


def inspect_database(url: URL, *, timeout: float, check_seconds: float) -> Inspection:
    """Look at a database that exists.

    Args:
        url: Where it is, as :func:`agent.persistence.locations.database_url` gives it.
        timeout: Seconds to wait for a connection or a lock.
        check_seconds: Seconds that SQLite's check of the whole file may take.

    Raises:
        DatabaseError: It cannot be read, or is no database.
        ConfigurationError: Another kind of database.
        MissingExtraError: The driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, timeout=timeout, check_seconds=check_seconds)
    return _server(url, timeout=timeout)


def _sqlite(url: URL, *, timeout: float, check_seconds: float) -> Inspection:
    path = Path(url.database or "")
    size = sum(each.stat().st_size for each in database_files(url))
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise DatabaseError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        return Inspection(revision=None, size=size)  # made, and never written
    if start != _MAGIC:
        raise DatabaseError(f"{path} is no SQLite database")
    try:
        with closing(sqlite3.connect(_for_reading(path), uri=True, timeout=timeout)) as connection:
            return _look(connection, size=size, check_seconds=check_seconds)
    except sqlite3.Error as error:
        raise DatabaseError(f"{path}: {error}") from error


def _for_reading(path: Path) -> str:
    # Without `immutable`, SQLite would make the side files that a reader and a writer share. Where both are
    # there, somebody writes, or was killed: what is in the log counts, and is read with it.
    shared = all(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-shm"))
    return f"file:{quote(str(path))}?mode=ro" + ("" if shared else "&immutable=1")


def _look(connection: sqlite3.Connection, *, size: int, check_seconds: float) -> Inspection:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    revision = None
    if revisions.name in tables:
        row = connection.execute(str(select(revisions.c.version_num))).fetchone()
        revision = row[0] if row else None
    foreign = () if revision is not None else tuple(sorted(tables & set(metadata.tables)))
    end = time.monotonic() + check_seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        said = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return Inspection(revision=revision, size=size, foreign=foreign, checked=False)
    damage = None if said == ["ok"] else "; ".join(" ".join(str(each).split()) for each in said)
    return Inspection(revision=revision, size=size, foreign=foreign, damage=damage)


def _server(url: URL, *, timeout: float) -> Inspection:
    engine = build_engine(url, timeout=timeout, connections=1, synchronous="normal")
    try:
        with engine.connect() as connection:
            revision = schema.stored_revision(connection)
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar()
            return Inspection(revision=revision, size=int(size or 0))
    except DBAPIError as error:
        name = url.set(query={}).render_as_string(hide_password=True)
        raise DatabaseError(f"{name}: {postgres.explain(error.orig)}") from error
    finally:
        engine.dispose()
