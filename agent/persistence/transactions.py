"""Statements of SQLAlchemy Core, run straight on the driver.

A statement is built and compiled by SQLAlchemy, once, and then handed to the driver as text with named
parameters. SQLAlchemy's own execution costs ten times what SQLite needs for the statement itself, and a step
of a graph runs a dozen of them. What it does in between is not needed here: there are no types to convert but
one (metadata, see :func:`agent.persistence.dialects.from_json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Insert
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

Parameters = Mapping[str, Any]
Record = tuple[Any, ...]


class Compiler:
    """Texts of statements for one dialect, kept for as long as the database is open."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._texts: dict[tuple[Any, ...], tuple[ClauseElement, str, Parameters]] = {}

    def constant(self, statement: ClauseElement, parameters: Parameters) -> tuple[str, Parameters]:
        """Text and parameters of a statement that lives as long as the program.

        A parameter that is a list stands for ``IN``; there is one text for every length of it.
        """
        lists = {name: values for name, values in parameters.items() if type(values) is list}
        key = (id(statement), *((name, len(values)) for name, values in lists.items()))
        if key not in self._texts:
            self._texts[key] = self._prepare(statement, parameters, expand=bool(lists))
        _, text, constants = self._texts[key]
        if not lists:
            return text, {**constants, **parameters} if constants else parameters
        flat = {**constants, **{name: value for name, value in parameters.items() if name not in lists}}
        for name, values in lists.items():
            flat.update((f"{name}_{position}", value) for position, value in enumerate(values, start=1))
        return text, flat

    def once(self, statement: ClauseElement) -> tuple[str, Parameters]:
        """Text and parameters of a statement that was built for this call."""
        compiled = statement.compile(dialect=self._dialect, compile_kwargs={"render_postcompile": True})
        return str(compiled), compiled.params

    def _prepare(
        self, statement: ClauseElement, parameters: Parameters, *, expand: bool
    ) -> tuple[ClauseElement, str, Parameters]:
        columns = None
        if isinstance(statement, Insert):  # which may need parameters besides
            columns = [name for name in parameters if name in statement.table.columns]
        compiled = statement.compile(dialect=self._dialect, column_keys=columns)
        assert isinstance(compiled, SQLCompiler)
        text = compiled.construct_expanded_state(dict(parameters)).statement if expand else str(compiled)
        constants = {name: value for name, value in compiled.params.items() if name not in parameters}
        return statement, text, constants  # holding the statement keeps its id its own


class Transaction:
    """A transaction on the driver's connection.

    Args:
        connection: Of the driver (DB-API 2).
        compiler: For its dialect.
        dialect: ``sqlite`` or ``postgresql``.
    """

    def __init__(self, connection: Any, *, compiler: Compiler, dialect: str) -> None:
        self.dialect = dialect
        self._cursor = connection.cursor()
        self._compiler = compiler

    def all(self, statement: ClauseElement, parameters: Parameters) -> list[Record]:
        """The rows of a constant statement."""
        self._cursor.execute(*self._compiler.constant(statement, parameters))
        rows: list[Record] = self._cursor.fetchall()
        return rows

    def together(self, *asked: tuple[ClauseElement, Parameters]) -> list[list[Record]]:
        """The rows of each of several constant statements that do not depend on each other."""
        return [self.all(statement, parameters) for statement, parameters in asked]

    def first(self, statement: ClauseElement, parameters: Parameters) -> Record | None:
        """The first row of a constant statement."""
        self._cursor.execute(*self._compiler.constant(statement, parameters))
        row: Record | None = self._cursor.fetchone()
        return row

    def value(self, statement: ClauseElement, parameters: Parameters) -> Any:
        """The first column of the first row of a constant statement."""
        row = self.first(statement, parameters)
        return None if row is None else row[0]

    def run(self, statement: ClauseElement, *rows: Parameters) -> None:
        """Run a constant statement for each of these parameters."""
        if len(rows) == 1:
            self._cursor.execute(*self._compiler.constant(statement, rows[0]))
        elif rows:
            self._cursor.executemany(self._compiler.constant(statement, rows[0])[0], rows)

    def changed(self, statement: ClauseElement, parameters: Parameters) -> int:
        """Run a constant statement; the number of rows that it changed."""
        self._cursor.execute(*self._compiler.constant(statement, parameters))
        changed: int = self._cursor.rowcount
        return changed

    def once(self, statement: ClauseElement) -> list[Record]:
        """Run a statement that was built for this call; its rows, if it returns any."""
        self._cursor.execute(*self._compiler.once(statement))
        rows: list[Record] = self._cursor.fetchall() if self._cursor.description else []
        return rows

    def must_not_repeat(self) -> None:
        """Say that running the work twice is not the same as running it once; SQLite never does."""
