"""The statements on both databases: they compile with every parameter named, and SQLite uses its keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Insert, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import ClauseElement, Select

from agent.persistence import journal, open_checkpointer, overview
from agent.persistence import statements as sql
from agent.persistence.dialects import metadata_matches
from agent.persistence.tables import metadata
from agent.persistence.transactions import Compiler

DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
    "postgresql": psycopg.PGDialect_psycopg(),
}
LISTS = {"thread_ids", "namespaces", "names", "versions", "checkpoint_ids"}


def constants(dialect: str) -> dict[str, ClauseElement]:
    found: dict[str, ClauseElement] = {}
    for module in (sql, journal):
        whole = {name: each for name, each in vars(module).items() if name.lstrip("_").isupper()}
        found |= {name: each for name, each in whole.items() if isinstance(each, Select | Update)}
    found["JOINED_ITEMS"] = sql.JOINED_ITEMS[dialect]
    return found | {f"insert {name}": each for name, each in vars(sql.Inserts(dialect)).items()}


def parameters_of(statement: ClauseElement) -> dict[str, Any]:
    if isinstance(statement, Insert):
        return {column.name: None for column in statement.table.columns}
    compiled = statement.compile()
    required = [name for name, value in compiled.params.items() if value is None]
    return {name: ["a", "b"] if name in LISTS else "a" for name in required}


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_every_parameter_is_given(dialect: str) -> None:
    compiler = Compiler(DIALECTS[dialect])
    for name, statement in constants(dialect).items():
        text, parameters = compiler.constant(statement, parameters_of(statement))
        named = set(re.findall(r"(?<![:\w]):(\w+)" if dialect == "sqlite" else r"%\((\w+)\)s", text))
        assert named == set(parameters), name
        assert "POSTCOMPILE" not in text, name


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_statements_built_for_one_call(dialect: str) -> None:
    compiler = Compiler(DIALECTS[dialect])
    conditions = metadata_matches(dialect, {"source": "loop", "step": 1, "nothing": None})
    for statement in (
        sql.page(conditions, size=5, after=("c", "t", "")),
        overview.newest(limit=1, offset=2, tag="x"),
        overview.every().where(metadata.tables["threads"].c.thread_id.in_(["a", "b", "c"])),
    ):
        text, parameters = compiler.once(statement)
        named = set(re.findall(r"(?<![:\w]):(\w+)" if dialect == "sqlite" else r"%\((\w+)\)s", text))
        assert named == set(parameters)
        assert "loop" not in text


def test_postgres_gets_its_own_types() -> None:
    dialect = DIALECTS["postgresql"]
    created = "".join(str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables)
    assert "JSONB" in created
    assert "BYTEA" in created
    assert 'thread_id TEXT COLLATE "C"' in created
    indexes = [index for table in metadata.sorted_tables for index in table.indexes]
    assert any(
        "WHERE run_id IS NOT NULL" in str(CreateIndex(each).compile(dialect=dialect)) for each in indexes
    )


def test_sqlite_reads_by_key(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path / "c.sqlite") as saver:
        compiler = Compiler(DIALECTS["sqlite"])

        def plans(transaction: Any) -> dict[str, str]:
            found = {}
            for name, statement in constants("sqlite").items():
                if isinstance(statement, Select):
                    text, parameters = compiler.constant(statement, parameters_of(statement))
                    transaction._cursor.execute(f"EXPLAIN QUERY PLAN {text}", parameters)
                    found[name] = "; ".join(row[3] for row in transaction._cursor.fetchall())
            return found

        for name, plan in saver.database.read(plans).items():
            tables = "|".join(metadata.tables)
            assert not re.search(rf"SCAN ({tables}|parent)\b", plan), f"{name}: {plan}"
