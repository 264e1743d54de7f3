"""One database: short transactions, from any thread and any event loop, with our own errors.

The core is synchronous. A SQLite statement takes microseconds, so a driver that hops to another thread for
each of them spends most of its time hopping; here an async caller hops once for a whole transaction. It also
makes the saver independent of event loops: several loops and plain threads may share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from agent.errors import DatabaseError
from agent.persistence import postgres, schema
from agent.persistence.batches import Batches
from agent.persistence.dialects import Synchronous, begin_statement, build_engine, for_writing, in_memory
from agent.persistence.locations import prepare_file
from agent.persistence.transactions import Compiler, Transaction

if TYPE_CHECKING:
    from agent.persistence.postgres_transactions import Transactions

T = TypeVar("T")
P = ParamSpec("P")

_ADVICE = {
    "locked": "another process has been writing to it for too long; try again, or raise timeout=",
    "readonly": "it is read-only; check the permissions of the file and of its directory",
    "read-only": "it is read-only; check the permissions of the file and of its directory",
    "full": "the disk is full; make room and try again, nothing was half-written",
    "disk i/o": "the disk reports an error; check its space and health",
    "not a database": "the file is not a SQLite database; move it away to start a new one",
    "malformed": "the file is damaged; restore a copy, or save what can be read with sqlite3's .recover",
    "unable to open": "check the path and its permissions",
    "no such table": "it is not one of ours; give another path",
    "no such column": "it is not one of ours; give another path",
}


class Database:
    """Transactions on one database.

    Args:
        url: Where it is.
        timeout: Seconds to wait for other writers.
        connections: How many transactions may run at once (one of them writing, in SQLite).
        synchronous: See :func:`agent.persistence.dialects.build_engine`.

    Raises:
        DatabaseError: It cannot be opened, or was written by a newer version of this package.
    """

    def __init__(
        self, url: URL, *, timeout: float = 30.0, connections: int = 8, synchronous: Synchronous = "normal"
    ) -> None:
        self.url = url
        self.name = url.set(query={}).render_as_string(hide_password=True).removeprefix("sqlite:///")
        self._closed = False
        # SQLite has one writer at a time: waiting here is fair and immediate, waiting there is a poll.
        self._write_turn = (
            threading.RLock() if url.get_backend_name() == "sqlite" else contextlib.nullcontext()
        )
        self._read_turn = self._write_turn if in_memory(url) else contextlib.nullcontext()
        if url.get_backend_name() == "sqlite" and not in_memory(url):
            url = prepare_file(url)
        self._engine = build_engine(url, timeout=timeout, connections=connections, synchronous=synchronous)
        self._compiler = Compiler(self._engine.dialect)
        self._transactions = self._postgres_transactions(timeout) if self.dialect == "postgresql" else None
        self._executor = ThreadPoolExecutor(connections, thread_name_prefix="conversations")
        self._batches = Batches(self.write)
        try:
            with self._translated():
                schema.ensure(self._engine, for_writing(self._engine), name=self.name)
        except BaseException:
            self.close()
            raise

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @property
    def in_memory(self) -> bool:
        """Whether it lives in this process alone."""
        return in_memory(self.url)

    def own_connection(self) -> Any:
        """A connection of the driver that the caller closes; it takes no place in the pool.

        Raises:
            DatabaseError: There is none to be had.
        """
        with self._translated():
            connection = self._engine.raw_connection()
            driver = connection.driver_connection
            connection.detach()
            return driver

    @property
    def read_only(self) -> bool:
        """Whether the file cannot be written."""
        return self._engine.url.query.get("mode") == "ro"

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction that sees one moment of the database and writes nothing."""
        with self._translated(), self._read_turn:
            return self._transact(work, writer=False)

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction that is committed when this returns, or not at all."""
        with self._translated(), self._write_turn:
            return self._transact(work, writer=True)

    def outside_transaction(self, statement: str) -> None:
        """Run one statement, such as ``VACUUM``, that refuses to be in a transaction."""
        with self._translated(), self._write_turn, self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.cursor().execute(statement)

    async def awrite(self, prepare: Callable[[], Callable[[Transaction], T]]) -> T:
        """Async form of :meth:`write`.

        Args:
            prepare: Returns the work; see :meth:`agent.persistence.batches.Batches.write`.
        """
        self._check_open()
        if self.dialect == "sqlite":
            return await self._batches.write(prepare)
        return await self.run(lambda: self.write(prepare()))

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking ``function`` on a thread of this database.

        A cancelled caller does not stop it: the transaction is finished, never torn.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Finish what runs and let go of the file; may be called again."""
        self._batches.close()
        self._closed = True
        self._executor.shutdown(wait=True)
        self._engine.dispose()

    def _transact(self, work: Callable[[Transaction], T], *, writer: bool) -> T:
        if self._transactions is not None:
            return self._transactions.run(work, writer=writer)
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute(begin_statement(writer=writer))
            result = work(Transaction(connection, compiler=self._compiler, dialect=self.dialect))
            connection.commit()
            return result
        finally:
            connection.close()  # back to the pool, which rolls back what was not committed

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseError(
                f"the conversations in {self.name} were closed: "
                "use them inside the `with` block that opened them"
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        self._check_open()
        try:
            yield
        except TimeoutError as error:
            raise DatabaseError(
                f"no connection to {self.name} became free in time; raise connections= or run less at once"
            ) from error
        except DBAPIError as error:
            raise DatabaseError(f"{self.name}: {self._explain(error.orig)}") from error
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise DatabaseError(f"{self.name}: {self._explain(error)}") from error
        except SQLAlchemyError as error:
            raise DatabaseError(f"{self.name}: {error}") from error
        except UnicodeEncodeError as error:
            raise DatabaseError(
                f"{self.name}: {error.object!r} cannot be stored: it has half of a surrogate pair in it"
            ) from error
        except OverflowError as error:
            raise DatabaseError(f"{self.name}: a number is too large ({error})") from error

    def _postgres_transactions(self, timeout: float) -> Transactions:
        from agent.persistence.postgres_transactions import Transactions

        return Transactions(self._engine, name=self.name, timeout=timeout)

    def _explain(self, error: BaseException | None) -> str:
        return postgres.explain(error) if self.dialect == "postgresql" else _explain(error)


def _explain(error: BaseException | None) -> str:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    for fragment, advice in _ADVICE.items():
        if fragment in said.lower():
            return f"{said} ({advice})"
    return said
