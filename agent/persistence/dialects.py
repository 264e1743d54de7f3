"""The one place that knows how SQLite and PostgreSQL differ.

Everything else in this package is written in SQLAlchemy Core and runs on both.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    Table,
    Text,
    cast,
    create_engine,
    event,
    func,
    literal,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from agent.errors import ConfigurationError, DatabaseError
from agent.persistence import postgres
from agent.persistence.tables import checkpoints

Synchronous = Literal["normal", "full"]

_WRITER = {"writer": True}
_LONGEST_WAIT = 2_000_000.0
"""Seconds, three weeks: both databases count milliseconds in 32 bits."""
_dump = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def to_json(value: Any) -> str:
    """JSON that both databases read: it has no number that is none, and PostgreSQL has no NUL."""
    try:
        dumped = _dump(value)
    except ValueError:
        dumped = _dump(_finite(value))
    return _NUL.sub(r"\1 ", dumped) if "\\u0000" in dumped else dumped


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def from_json(stored: Any) -> Any:
    """A JSON column's value: SQLite's driver gives the text, PostgreSQL's has parsed it.

    Raises:
        DatabaseError: It is damaged.
    """
    try:
        return json.loads(stored) if isinstance(stored, str) else stored
    except ValueError as error:
        raise DatabaseError(f"stored metadata is damaged: {error}") from error


def build_engine(url: URL, *, timeout: float, connections: int, synchronous: Synchronous) -> Engine:
    """Build the engine for one database.

    Args:
        url: Where it is; backend ``sqlite`` or ``postgresql``.
        timeout: Seconds to wait for another process's write lock (SQLite) or for a connection.
        connections: At most so many connections at once.
        synchronous: SQLite only. ``normal`` survives a killed process, ``full`` also a power cut.

    Raises:
        ConfigurationError: Another kind of database, or another setting.
        MissingExtraError: The driver is not installed.
    """
    if synchronous not in get_args(Synchronous):
        raise ConfigurationError(f"synchronous={synchronous!r}: use 'normal' or 'full'")
    timeout = min(timeout, _LONGEST_WAIT)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, timeout=timeout, connections=connections, synchronous=synchronous)
    if url.get_backend_name() == "postgresql":
        return postgres.build_engine(url, timeout=timeout, connections=connections, json_serializer=to_json)
    raise ConfigurationError(
        f"conversations cannot be stored in a {url.get_backend_name()!r} database: "
        "give a file path, sqlite:///… or postgresql://…"
    )


def begin_statement(*, writer: bool) -> str:
    """What starts a transaction of SQLite on the driver's own connection."""
    return "BEGIN IMMEDIATE" if writer else "BEGIN"


def in_memory(url: URL) -> bool:
    """Whether the database lives in this process alone, on a single connection."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def for_writing(engine: Engine) -> Engine:
    """The same engine and pool, but its transactions take the write lock when they begin.

    A transaction that reads first and writes later would fail in SQLite when another process wrote in
    between, whatever the busy timeout: it must own the lock from its first statement.
    """
    return engine.execution_options(**_WRITER)


def insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """``INSERT`` with ``ON CONFLICT`` for that dialect; both spell it alike."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def joined(dialect: str, value: Column[bytes], *, order: Column[Any]) -> ColumnElement[bytes]:
    """An aggregate: all bytes of a column end to end.

    In SQLite they come as the table is read, which :func:`test_sqlite_reads_by_key` shows to be by key.
    """
    if dialect == "postgresql":
        return func.string_agg(value, postgresql.aggregate_order_by(literal(b"", LargeBinary), order))
    return cast(func.group_concat(cast(value, Text), literal("", Text)), LargeBinary)


def metadata_matches(dialect: str, wanted: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Conditions that a checkpoint's metadata has these values; keys and values are bound, never spliced.

    A dot in a key leads into a nested object, and ``None`` stands for what is null or not there.

    Raises:
        ConfigurationError: A key that cannot occur.
    """
    for key in wanted:
        if '"' in key or not key.isprintable():
            raise ConfigurationError(
                f"metadata key {key!r} in a filter: quotes and control characters cannot occur"
            )
    matches = _postgres_matches if dialect == "postgresql" else _sqlite_matches
    return [matches(key, value) for key, value in wanted.items()]


def _postgres_matches(key: str, value: Any) -> ColumnElement[bool]:
    path = literal(key.split("."), postgresql.ARRAY(Text))
    found: ColumnElement[Any] = func.coalesce(
        checkpoints.c.metadata.op("#>")(path), cast(literal("null", Text), postgresql.JSONB)
    )
    return found == cast(literal(to_json(value), Text), postgresql.JSONB)


def _sqlite_matches(key: str, value: Any) -> ColumnElement[bool]:
    path = "$" + "".join(f'."{part}"' for part in key.split("."))
    found: ColumnElement[Any] = func.json_extract(checkpoints.c.metadata, path)
    if value is None:
        return found.is_(None)
    if isinstance(value, dict | list):
        return found == to_json(value)
    return found == (value if isinstance(value, str | int | float) else str(value))


def _sqlite_engine(url: URL, *, timeout: float, connections: int, synchronous: Synchronous) -> Engine:
    pool: dict[str, Any] = {"pool_size": connections, "max_overflow": 0, "pool_timeout": timeout}
    if in_memory(url):
        pool = {"poolclass": StaticPool}
    engine = create_engine(
        url,
        paramstyle="named",
        connect_args={"timeout": timeout, "check_same_thread": False},
        json_serializer=to_json,
        **pool,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; see `begin`
        cursor = connection.cursor()
        if url.query.get("mode") != "ro":
            cursor.execute("PRAGMA journal_mode=WAL")
        # WAL survives kill -9 at either setting, as the log is in the system's cache once it is written;
        # `full` adds a flush to the disk per commit, which only a power cut makes necessary.
        cursor.execute(f"PRAGMA synchronous={synchronous.upper()}")
        cursor.execute("PRAGMA cache_size=-16000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writer = connection.get_execution_options().get("writer")
        connection.exec_driver_sql(begin_statement(writer=bool(writer)))

    return engine
