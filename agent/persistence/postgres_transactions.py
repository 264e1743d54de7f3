"""Transactions on PostgreSQL: few round trips, and run again when the server was taken away meanwhile.

Statements whose result nobody has asked for yet travel together (libpq's pipeline mode): storing a checkpoint
takes three trips to the server in the place of ten.

When the connection is lost during a commit, nobody can tell what became of it: the server itself may give the
number of a transaction that a crash undid to another one. So what we write is made such that doing it again
does nothing more: a checkpoint has an id, a call in the journal the moment and the process of its beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

from agent.errors import DatabaseError
from agent.persistence import postgres
from agent.persistence.dialects import begin_statement
from agent.persistence.transactions import Compiler, Parameters, Record, Transaction

T = TypeVar("T")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between attempts to reach a server that restarts."""


class PipelinedTransaction(Transaction):
    """A transaction whose statements wait for each other's results only where these are used.

    Args:
        connection: Of psycopg, in pipeline mode.
        pipeline: Its pipeline.
        compiler: For PostgreSQL.
        writer: Whether it may write.
    """

    def __init__(self, connection: Any, pipeline: Any, *, compiler: Compiler, writer: bool) -> None:
        super().__init__(connection, compiler=compiler, dialect="postgresql")
        self._connection = connection
        self._pipeline = pipeline
        self._single = self._ending = False
        self._send(begin_statement("postgresql", writer=writer))

    def all(self, statement: ClauseElement, parameters: Parameters) -> list[Record]:
        """The rows of a constant statement."""
        rows: list[Record] = self._send(*self._compiler.constant(statement, parameters)).fetchall()
        return rows

    def together(self, *asked: tuple[ClauseElement, Parameters]) -> list[list[Record]]:
        """The rows of each of several constant statements, in one trip to the server."""
        cursors = [self._send(*self._compiler.constant(*each)) for each in asked]
        return [cursor.fetchall() for cursor in cursors]

    def first(self, statement: ClauseElement, parameters: Parameters) -> Record | None:
        """The first row of a constant statement."""
        row: Record | None = self._send(*self._compiler.constant(statement, parameters)).fetchone()
        return row

    def run(self, statement: ClauseElement, *rows: Parameters) -> None:
        """Run a constant statement for each of these parameters."""
        for row in rows:
            self._send(*self._compiler.constant(statement, row))

    def changed(self, statement: ClauseElement, parameters: Parameters) -> int:
        """Run a constant statement; the number of rows that it changed."""
        cursor = self._send(*self._compiler.constant(statement, parameters))
        self._pipeline.sync()
        changed: int = cursor.rowcount
        return changed

    def once(self, statement: ClauseElement) -> list[Record]:
        """Run a statement that was built for this call; its rows, if it returns any."""
        cursor = self._send(*self._compiler.once(statement))
        self._pipeline.sync()
        rows: list[Record] = cursor.fetchall() if cursor.description else []
        return rows

    def must_not_repeat(self) -> None:
        """Say that running the work twice is not the same as running it once."""
        self._single = True

    def commit(self) -> None:
        """Send the end; what it says is known when the pipeline has ended."""
        self._ending = True
        self._send("COMMIT")

    @property
    def must_stay_single(self) -> bool:
        """Whether it may have been committed, and must not be run again to make sure."""
        return self._ending and self._single

    def _send(self, statement: str, parameters: Parameters | None = None) -> Any:
        cursor = self._connection.cursor(binary=True)
        return cursor.execute(statement, parameters)


class Transactions:
    """Runs work in transactions of one database.

    Args:
        engine: Its engine.
        name: What to call it in messages.
        timeout: Seconds for which a server that is away is waited for.
    """

    def __init__(self, engine: Engine, *, name: str, timeout: float) -> None:
        self._engine = engine
        self._name = name
        self._timeout = timeout
        self._compiler = Compiler(engine.dialect)
        self._failures = (engine.dialect.loaded_dbapi.Error, DBAPIError)

    def run(self, work: Callable[[Transaction], T], *, writer: bool) -> T:
        """Run work in a transaction, again if the server was away or ended a deadlock with it.

        Raises:
            DatabaseError: It may have been committed, and must not be run twice.
        """
        patience = _Patience(self._timeout)
        while True:
            try:
                return self._attempt(work, writer=writer)
            except self._failures as error:
                patience.after(error)

    def _attempt(self, work: Callable[[Transaction], T], *, writer: bool) -> T:
        connection = self._engine.raw_connection()
        driver: Any = connection.driver_connection
        transaction: PipelinedTransaction | None = None
        try:
            with driver.pipeline() as pipeline:
                transaction = PipelinedTransaction(driver, pipeline, compiler=self._compiler, writer=writer)
                result = work(transaction)
                transaction.commit()
            return result
        except self._failures as error:
            if driver.closed and transaction is not None and transaction.must_stay_single:
                raise DatabaseError(
                    f"{self._name}: the connection was lost during a commit, so this was done "
                    f"whole or not at all: look, and do it again if it was not ({postgres.explain(error)})"
                ) from error
            raise
        finally:
            if driver.closed:
                connection.invalidate()  # there is nothing to roll back on it
            connection.close()  # back to the pool, which rolls back what was not committed


class _Patience:
    """How long to go on trying."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._pause = _SHORTEST_PAUSE

    def is_over(self) -> bool:
        return time.monotonic() > self._until

    def pause(self) -> None:
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def after(self, error: BaseException) -> None:
        """Return when it is time to try again; raise the error when it is not worth it."""
        if not postgres.is_passing(error) or self.is_over():
            raise error
        if isinstance(error, DBAPIError):  # no connection; a lost one is replaced at once
            self.pause()
