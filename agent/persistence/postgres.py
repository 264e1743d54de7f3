"""PostgreSQL: how a connection is made, and what its failures mean.

Our tables are in a schema of their own, so that a database that is shared with an application, with its
Alembic, or with LangGraph's saver (whose ``checkpoints`` is another table) can hold conversations as well.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from agent.errors import ConfigurationError, DatabaseError, MissingExtraError

SCHEMA: Final = "vllm_agent"
_SCHEMA_LOCK: Final = 0x76_6C_6C_6D
"""Of this advisory lock only one process at a time creates or migrates tables ("vllm" in ASCII)."""
_CONNECT_SECONDS: Final = 10
_OLDEST: Final = 13_00_00
"""The first version that can decompose texts, which searching without accents needs."""

_PASSING: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected: the other transaction goes on, this one was undone
        "53300",  # too_many_connections
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now: it is starting up
    }
)
_LASTING_WORDS: Final = ("authentication", "password", "pg_hba", "does not exist", "permission")
"""A connection that was refused has no code, only a text. What a restarting server says has many forms."""

_ADVICE: Final = {
    "28": "check the user and the password in the address",
    "3D000": "create it (createdb), or name another one in the address",
    "42501": "grant this user CREATE on the database, so that it can have the schema vllm_agent",
    "53100": "the server's disk is full; make room and try again, nothing was half-written",
    "53200": "the server is out of memory; try again later",
    "53300": "the server has no connection left; lower connections=, or raise its max_connections",
    "55P03": "another process has been writing to it for too long; try again, or raise timeout=",
    "25006": "the server takes no writes, such as a standby; name the primary in the address",
    "57014": "it took longer than the server's statement_timeout",
    "57P": "the server was stopped or is starting; try again, nothing was half-written",
    "08": "the connection was lost; try again, nothing was half-written",
}
_UNREACHED: Final = "is the server running, and does it listen on that address?"
_ADVICE_BY_WORDS: Final = {
    "authentication failed": _ADVICE["28"],
    "no password supplied": _ADVICE["28"],
    "no pg_hba.conf entry": "the server does not let this user in from here; see its pg_hba.conf",
    "does not exist": "check the user and the database in the address; createdb makes a database",
    "too many": _ADVICE["53300"],
    "remaining connection": _ADVICE["53300"],
    "refused": _UNREACHED,
    "no such file": _UNREACHED,
    "timeout": "check the address; a firewall may be in between",
    "resolve": "check the host in the address",
    "name or service": "check the host in the address",
}


def build_engine(url: URL, *, timeout: float, connections: int, json_serializer: Any) -> Engine:
    """Build the engine; see :func:`agent.persistence.dialects.build_engine`."""
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigurationError(
            f"{url.drivername}://… is not supported: write postgresql://…; the driver is psycopg 3"
        )
    # libpq takes whole seconds, and 1 as 2.
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": _patience(timeout)}
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            json_serializer=json_serializer,
            use_native_hstore=False,
            # Transactions are begun by us, as in SQLite: a read begins as one that sees one moment.
            connect_args={"autocommit": True, "application_name": "vllm-agent", **patience},
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout,
            pool_use_lifo=True,
        )
    except ImportError as error:
        raise MissingExtraError(
            "PostgreSQL needs the package psycopg, which is not installed: pip install 'vllm-agent[postgres]'"
        ) from error
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{url.set(query={}).render_as_string()} is no address of a database: {error}"
        ) from error
    # Compiling a plan costs more than any statement of ours takes.
    settings = [f"SET lock_timeout = {math.ceil(timeout * 1000)}", "SET jit = off"]
    if "search_path" not in str(url.query.get("options", "")):
        settings.append(f"SET search_path TO {SCHEMA}")

    @event.listens_for(engine, "connect", insert=True)
    def configure(connection: Any, _record: object) -> None:
        _require_what_we_need(connection)
        connection.execute("; ".join(settings))

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")
        if connection.get_execution_options().get("writer"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    return engine


def _require_what_we_need(connection: Any) -> None:
    info = connection.info
    if info.server_version < _OLDEST:
        raise DatabaseError(
            f"the server is PostgreSQL {info.server_version // 10_000}: 13 or newer is needed"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"the database {info.dbname} has the encoding {encoding}, which cannot hold every character: "
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def create_schema(connection: Connection) -> None:
    """Create the schema for the tables, unless the address names one."""
    if connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")


def is_passing(error: BaseException) -> bool:
    """Whether a transaction that failed so, before its commit, may succeed when it is run again."""
    code = _code(error)
    if code is not None:
        return code in _PASSING or code.startswith("08")
    original = _original(error)
    if type(original).__name__ not in ("OperationalError", "ConnectionTimeout"):
        return False
    return not any(word in str(original) for word in _LASTING_WORDS)


def explain(error: BaseException | None) -> str:
    """What went wrong and what to do, in one line, without a password."""
    said = " ".join(str(_original(error)).split()) or type(error).__name__
    said = re.sub(r"(password=)\S+", r"\1***", said)
    code = _code(error) or ""
    for prefix, advice in _ADVICE.items():
        if code.startswith(prefix):
            return f"{said} ({advice})"
    if not code:
        for words, advice in _ADVICE_BY_WORDS.items():
            if words in said.lower():
                return f"{said} ({advice})"
        if type(_original(error)).__name__ == "OperationalError":
            # One that is just going away may still take a connection, and drops it before a word was said.
            never_made = said.startswith("connection failed")
            return f"{said} ({_UNREACHED if never_made else _ADVICE['08']})"
    return said


def _original(error: BaseException | None) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _code(error: BaseException | None) -> str | None:
    code: str | None = getattr(_original(error), "sqlstate", None)
    return code


def _patience(timeout: float) -> int:
    return max(2, min(_CONNECT_SECONDS, math.ceil(timeout)))
