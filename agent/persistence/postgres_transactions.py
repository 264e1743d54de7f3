"""Transactions on PostgreSQL: few round trips, and run again when the server was taken away meanwhile.

Statements whose result nobody has asked for yet travel together (:mod:`agent.persistence.postgres_pipeline`):
storing a checkpoint takes two trips to the server in the place of ten.

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
from agent.persistence.postgres_pipeline import Asked, Pipeline, Prepared
from agent.persistence.transactions import Compiler, Parameters, Record, Transaction

T = TypeVar("T")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between attempts to reach a server that restarts."""


_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""What a read finds has to fit together, though it takes several statements. A write takes the lock of its
thread with its first statement, and has to see what the one before it has committed."""


class PipelinedTransaction(Transaction):
    """A transaction whose statements wait for each other's results only where these are used.

    Args:
        connection: Of psycopg.
        prepared: The statements that were prepared on it.
        compiler: For PostgreSQL.
        writer: Whether it may write.
    """

    def __init__(self, connection: Any, prepared: Prepared, *, compiler: Compiler, writer: bool) -> None:
        super().__init__(connection, compiler=compiler, dialect="postgresql")
        self._pipeline = Pipeline(connection, prepared)
        self._single = self._ending = False
        self._begun = not writer
        if self._begun:
            self._pipeline.ask(_BEGIN_READING)

    def all(self, statement: ClauseElement, parameters: Parameters) -> list[Record]:
        """The rows of a constant statement."""
        return self._pipeline.rows(self._ask(statement, parameters))

    def together(self, *asked: tuple[ClauseElement, Parameters]) -> list[list[Record]]:
        """The rows of each of several constant statements, in one trip to the server."""
        return [self._pipeline.rows(each) for each in [self._ask(*each) for each in asked]]

    def first(self, statement: ClauseElement, parameters: Parameters) -> Record | None:
        """The first row of a constant statement."""
        rows = self.all(statement, parameters)
        return rows[0] if rows else None

    def run(self, statement: ClauseElement, *rows: Parameters) -> None:
        """Run a constant statement for each of these parameters."""
        for row in rows:
            self._ask(statement, row)

    def changed(self, statement: ClauseElement, parameters: Parameters) -> int:
        """Run a constant statement; the number of rows that it changed."""
        return self._pipeline.changed(self._ask(statement, parameters))

    def once(self, statement: ClauseElement) -> list[Record]:
        """Run a statement that was built for this call; its rows, if it returns any."""
        return self._pipeline.rows(self._pipeline.ask(*self._compiler.once(statement), prepare=False))

    def must_not_repeat(self) -> None:
        """Say that running the work twice is not the same as running it once."""
        self._single = True

    def commit(self) -> None:
        """Commit, and know that it was."""
        self._ending = True
        if self._begun:
            self._pipeline.ask("COMMIT")
        self._pipeline.end()

    def abandon(self) -> None:
        """Undo everything."""
        self._pipeline.abandon()

    @property
    def must_stay_single(self) -> bool:
        """Whether it may have been committed, and must not be run again to make sure."""
        return self._ending and self._single

    def _ask(self, statement: ClauseElement, parameters: Parameters) -> Asked:
        return self._pipeline.ask(*self._compiler.constant(statement, parameters))


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
        prepared = connection.info.setdefault("prepared", Prepared())
        transaction: PipelinedTransaction | None = None
        try:
            transaction = PipelinedTransaction(driver, prepared, compiler=self._compiler, writer=writer)
            result = work(transaction)
            transaction.commit()
            return result
        except BaseException as error:
            _undo(driver, transaction)
            if isinstance(error, self._failures) and driver.closed and _stays_single(transaction):
                raise DatabaseError(
                    f"{self._name}: the connection was lost during a commit, so this was done "
                    f"whole or not at all: look, and do it again if it was not ({postgres.explain(error)})"
                ) from error
            raise
        finally:
            if driver.closed:
                connection.invalidate()  # there is nothing to roll back on it
            connection.close()  # back to the pool


def _undo(driver: Any, transaction: PipelinedTransaction | None) -> None:
    """Take back what a failed transaction did; a connection that is in doubt is closed, which does so too."""
    try:
        if transaction is not None:
            transaction.abandon()
    except Exception:
        driver.close()


def _stays_single(transaction: PipelinedTransaction | None) -> bool:
    return transaction is not None and transaction.must_stay_single


class _Patience:
    """How long to go on trying; once more in any case, as the first connection may have been lost long ago.

    Args:
        seconds: For a server that is away.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._first = True
        self._pause = _SHORTEST_PAUSE

    def is_over(self) -> bool:
        return time.monotonic() > self._until

    def pause(self) -> None:
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def after(self, error: BaseException) -> None:
        """Return when it is time to try again; raise the error when it is not worth it."""
        if not postgres.is_passing(error) or (self.is_over() and not self._first):
            raise error
        self._first = False
        if isinstance(error, DBAPIError):  # no connection; a lost one is replaced at once
            self.pause()
