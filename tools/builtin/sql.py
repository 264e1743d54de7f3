"""SQL on one database, through SQLAlchemy: read-only unless more is allowed.

What holds, the database itself enforces; a statement is not trusted because of how it looks.

==========  =========================================  ==============================================
            SQLite                                     PostgreSQL
==========  =========================================  ==============================================
read-only   the file is opened with ``mode=ro``, and   a transaction that is read-only and has begun
            an authorizer allows reading and nothing   to read, so that it cannot be changed any more;
            else (no ``ATTACH``, no ``PRAGMA``)        one statement each, as the protocol demands
time        a progress handler ends the statement      ``statement_timeout``
rows        are fetched one by one                     are fetched through a cursor of the server
==========  =========================================  ==============================================

A role of PostgreSQL may have rights that no transaction limits (reading files of the server, for example):
give a role that can read what the model may see, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool

from tools.arguments import closest
from tools.decorator import tool
from tools.errors import ToolError, ToolInputError, ToolRegistrationError
from tools.policy import ToolPolicy

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import URL, Connection, Engine

_READING = ("select", "with", "values", "table", "explain", "show")
_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*", re.DOTALL)
_CELL = 500  # characters of a value that are shown
_LONGEST = 10_000_000  # bytes of a text or blob in SQLite: one function call may make a huge one
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_TABLES = 200  # that are listed
_SPARE = 5.0  # seconds in which the database's own time limit must have taken effect


def build_sql_tools(
    url: str, *, writable: bool = False, timeout: float = 15.0, max_rows: int = 100
) -> list[BaseTool]:
    """A tool that runs a statement, and one that tells what tables there are.

    Args:
        url: The database as SQLAlchemy writes it, for example ``sqlite:///shop.db`` or
            ``postgresql+psycopg://reader@localhost/shop``. A beginning of ``$`` names an environment
            variable that holds it, where a password should not stand in a file.
        writable: Allow statements that change something; a person must then approve each.
        timeout: Seconds that one statement may take.
        max_rows: Rows of a result that are fetched.

    Raises:
        ToolRegistrationError: The address is wrong, its driver is missing, or its kind of database cannot be
            held to reading.
    """
    if not (timeout > 0 and max_rows > 0):
        raise ToolRegistrationError(f"timeout={timeout!r} and max_rows={max_rows!r} must be above 0")
    database = Database(url, writable=writable, timeout=timeout, max_rows=max_rows)
    kind = "" if writable else " that reads data"
    policy = ToolPolicy(timeout=timeout + _SPARE, idempotent=not writable, approval=writable)

    @tool("sql_query", policy=policy, description=f"Run one SQL statement{kind} ({database.dialect}).")
    def sql_query(query: str) -> str:
        """Run a statement.

        Args:
            query: One SQL statement. See sql_schema for the tables.
        """
        return database.run(query)

    @tool(policy=ToolPolicy(timeout=timeout + _SPARE, idempotent=True))
    def sql_schema(table: str = "") -> str:
        """List the tables of the database, with their columns.

        Args:
            table: Name of one table; leave it out for all.
        """
        return database.schema(table)

    return [sql_query, sql_schema]


class Database:
    """One database, connected to anew for each statement: no setting of one can reach the next."""

    def __init__(self, url: str, *, writable: bool, timeout: float, max_rows: int) -> None:
        self._writable = writable
        self._timeout = timeout
        self._max_rows = max_rows
        address = _address(url)
        self.dialect = address.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql") and not writable:
            raise ToolRegistrationError(
                f"a database of the kind {self.dialect!r} cannot be held to reading here: only sqlite and "
                "postgresql can. Set writable=true, and a person is asked before each statement"
            )
        self._engine = self._build(address)

    def run(self, query: str) -> str:
        """Run one statement and show its rows.

        Raises:
            ToolInputError: The statement is wrong, or not allowed.
            ToolError: The database cannot be reached, or the time was over.
        """
        word = _first_word(query)
        if not self._writable and word not in _READING:
            raise ToolInputError(f"{word or query!r}: only statements that read are allowed, such as SELECT")
        with self._connected() as connection:
            # The server keeps the rows until they are fetched; ours is not the memory for all of them.
            streams = not self._writable and word not in ("explain", "show")  # which no cursor can hold
            options = {"stream_results": True, "max_row_buffer": 100} if streams else {}
            # psycopg reads «%» as the beginning of a parameter; there are none here.
            statement = query.replace("%", "%%") if self.dialect == "postgresql" else query
            result = connection.exec_driver_sql(statement, execution_options=options)
            if not result.returns_rows:
                changed = result.rowcount
                if changed < 0 and self.dialect == "sqlite":  # its driver counts none that begins with WITH
                    changed = connection.exec_driver_sql("SELECT changes()").scalar() or 0
                connection.commit()
                return f"Done. {max(changed, 0)} rows changed."
            rows = result.fetchmany(self._max_rows + 1)
            names = list(result.keys())
            result.close()
            if self._writable:
                connection.commit()
        return _table(names, [tuple(row) for row in rows[: self._max_rows]], len(rows) > self._max_rows)

    def schema(self, table: str) -> str:
        """Tables and views with their columns, one line each.

        Raises:
            ToolInputError: There is no table of that name.
            ToolError: The database cannot be reached.
        """
        from sqlalchemy import inspect

        with self._connected() as connection:
            looking = inspect(connection)
            names = sorted({*looking.get_table_names(), *looking.get_view_names()})
            if table and table not in names:
                raise ToolInputError(f"there is no table {table!r}.{closest(table, names)}")
            lines = []
            for name in [table] if table else names[:_TABLES]:
                key = set(looking.get_pk_constraint(name).get("constrained_columns", ()))
                columns = [
                    f"{each['name']} {each['type']}{' primary key' if each['name'] in key else ''}"
                    for each in looking.get_columns(name)
                ]
                references = [
                    f"{', '.join(each['constrained_columns'])} → {each['referred_table']}"
                    for each in looking.get_foreign_keys(name)
                ]
                lines.append(f"{name}({', '.join(columns + references)})")
        if not table and len(names) > _TABLES:
            lines.append(f"[Only the first {_TABLES} of {len(names)} tables are shown.]")
        return "\n".join(lines) or "The database has no tables."

    def _build(self, address: URL) -> Engine:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import ArgumentError
        from sqlalchemy.pool import NullPool

        options: dict[str, Any] = {"poolclass": NullPool}
        if self.dialect == "sqlite":
            options["creator"] = lambda: self._open_sqlite(address.database)
        elif address.get_driver_name() == "psycopg":
            # A threshold of 0 prepares every statement, and what is prepared must be one: without it,
            # «COMMIT; DROP TABLE t» would leave the transaction.
            options["connect_args"] = {"prepare_threshold": 0, "connect_timeout": int(self._timeout) or 1}
        elif self.dialect == "postgresql" and not self._writable:
            raise ToolRegistrationError(
                "to hold PostgreSQL to reading, use its driver psycopg: postgresql+psycopg://…"
            )
        try:
            return create_engine(address, **options)
        except ModuleNotFoundError as error:
            raise ToolRegistrationError(
                f"a database of the kind {self.dialect!r} needs the module {error.name!r}: install its driver"
            ) from error
        except ArgumentError as error:
            raise ToolRegistrationError(f"the database cannot be used: {error}") from error

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            with self._engine.connect() as connection:
                if self.dialect == "postgresql":
                    self._begin_postgresql(connection)
                yield connection
        except DBAPIError as error:
            text = str(error.orig).strip()
            if "interrupted" in text or "statement timeout" in text:
                raise ToolError(
                    f"the statement took longer than {self._timeout:g} s and was stopped"
                ) from None
            raise ToolInputError(f"the database says: {text}") from None
        except SQLAlchemyError as error:
            raise ToolError(f"the database cannot be used: {error}") from None

    def _begin_postgresql(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(self._timeout * 1000)}")
        if not self._writable:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql("SELECT 1")  # from the first query on, it cannot be set back

    def _open_sqlite(self, database: str | None) -> sqlite3.Connection:
        """A connection to the file, which must exist; SQLite would make one of a misspelt name."""
        import sqlite3
        from pathlib import Path

        if database is None or database == ":memory:":
            raise sqlite3.OperationalError("a database in memory is empty: give the path of a file")
        mode = "rw" if self._writable else "ro"
        address = f"{Path(database).expanduser().absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(address, uri=True, timeout=self._timeout, check_same_thread=False)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # another file is another database
        end = time.monotonic() + self._timeout
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        if not self._writable:
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(_may_read)
        return connection


def _may_read(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    import sqlite3

    allowed = {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_TRANSACTION,  # as SQLAlchemy ends each
    }
    if action in allowed:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second != "load_extension":
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _LOOKING:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


# What SQLAlchemy asks to describe tables. As statements they do not begin with a word that reads.
_LOOKING = frozenset(
    {
        "table_info",
        "table_xinfo",
        "table_list",
        "foreign_key_list",
        "index_list",
        "index_info",
        "read_uncommitted",
    }
)


def _address(url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if url.startswith("$"):
        variable = url[1:]
        if not os.environ.get(variable):
            raise ToolRegistrationError(
                f"the environment variable {variable!r}, for the database, is not set"
            )
        url = os.environ[variable]
    # The driver that the extra postgres brings; the second is the older name that several hosters write.
    url = re.sub("^(postgresql|postgres)://", "postgresql+psycopg://", url)
    try:
        return make_url(url)
    except ArgumentError:  # its message has the text, and that may have a password in it
        raise ToolRegistrationError("url is no address of a database, such as sqlite:///shop.db") from None


def _first_word(query: str) -> str:
    rest = query[len(_COMMENTS.match(query)[0]) :]  # type: ignore[index]  # it matches the empty text too
    return re.match(r"\w*", rest)[0].casefold()  # type: ignore[index]


def _table(names: list[str], rows: list[tuple[Any, ...]], more: bool) -> str:
    lines = [" | ".join(names), *(" | ".join(_cell(value) for value in row) for row in rows)]
    if not rows:
        lines.append("[No rows.]")
    elif more:
        lines.append(f"[Only the first {len(rows)} rows are shown; use LIMIT, WHERE or an aggregate.]")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes | memoryview):
        return f"({len(bytes(value)):,} bytes)"
    text = str(value).replace("\n", "\\n").replace("|", "\\|")
    return text if len(text) <= _CELL else f"{text[:_CELL]}… ({len(text):,} characters)"
