"""The SQL tool on a real PostgreSQL: read-only by the server's own word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_core.tools import BaseTool
from sqlalchemy import Engine, create_engine, text

from tools import ToolError, ToolInputError
from tools.builtin import build_sql_tools

ATTACKS = [
    "delete from town",
    "with gone as (delete from town returning name) select * from gone",
    "select 1; delete from town",
    "commit; delete from town",
    "select 1; commit; delete from town; select 2",
    "set transaction read write; delete from town",
    "set session characteristics as transaction read write",
    "do $$ begin perform set_config('transaction_read_only', 'off', false); delete from town; end $$",
    "select set_config('transaction_read_only', 'off', false)",
    "explain analyze delete from town",
    "select * into copy from town",
    "select nextval('numbers')",
    "select name from town for update",
    "copy town to '/tmp/town.csv'",
    "prepare x as delete from town",
    "create temp table t(x int)",
    "call nothing()",
]


@pytest.fixture
def address(postgres_url: str) -> Iterator[str]:
    made = engine(postgres_url)
    with made.begin() as connection:
        connection.execute(text("create table town(id int primary key, name text)"))
        connection.execute(text("insert into town values (1, 'Rome'), (2, null)"))
        connection.execute(text("create sequence numbers"))
    made.dispose()
    return postgres_url


def engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))


def query_tool(address: str, **options: object) -> BaseTool:
    return build_sql_tools(address, **options)[0]  # type: ignore[arg-type]


def towns(address: str) -> list[tuple[object, ...]]:
    made = engine(address)
    try:
        with made.connect() as connection:
            return [tuple(row) for row in connection.execute(text("select id, name from town order by id"))]
    finally:
        made.dispose()


def test_rows_and_the_schema(address):
    query, schema = build_sql_tools(address)
    assert query.invoke({"query": "select * from town order by id"}) == "id | name\n1 | Rome\n2 | NULL"
    assert schema.invoke({}) == "town(id INTEGER primary key, name TEXT)"
    assert "Seq Scan" in query.invoke({"query": "explain select * from town"})
    assert query.invoke({"query": "show transaction_read_only"}).endswith("on")
    assert query.invoke({"query": "select '%s', 5 % 3"}).endswith("%s | 2")


@pytest.mark.parametrize("first_word_counts", [True, False])
def test_nothing_is_written_whatever_is_tried(address, monkeypatch, first_word_counts):
    if not first_word_counts:  # what the server refuses by itself
        monkeypatch.setattr(
            "tools.builtin.sql._READING", type("Any", (), {"__contains__": lambda *_: True})()
        )
    query = query_tool(address)
    before = towns(address)
    harmless = ("set session", "prepare", "copy")  # by themselves: nothing of them reaches another statement
    for attack in ATTACKS:
        if not first_word_counts and attack.startswith("copy"):
            continue  # a right of the role, which a transaction does not limit
        if not first_word_counts and attack.startswith(harmless):
            continue
        with pytest.raises((ToolInputError, ToolError)):
            query.invoke({"query": attack})
        assert towns(address) == before, attack


def test_a_statement_past_its_time_is_stopped_by_the_server(address):
    query = query_tool(address, timeout=5)  # the connection has to be made in that time too
    with pytest.raises(ToolError, match="took longer than 5 s"):
        query.invoke({"query": "select pg_sleep(60)"})  # which would come to its end


def test_rows_without_an_end_are_not_fetched_into_memory(address):
    query = query_tool(address, max_rows=10, timeout=60)
    shown = query.invoke({"query": "select 1 from generate_series(1, 30000) a, generate_series(1, 30000) b"})
    assert shown.splitlines()[-1].startswith("[Only the first 10 rows")


def test_writing_when_it_is_allowed(address):
    query = query_tool(address, writable=True)
    assert query.invoke({"query": "insert into town values (3, 'Bonn')"}) == "Done. 1 rows changed."
    assert (3, "Bonn") in towns(address)


def test_an_error_does_not_show_the_password(postgres_url):
    query = query_tool("postgresql://me:hunter2@127.0.0.1:1/none", timeout=3)
    with pytest.raises((ToolError, ToolInputError)) as caught:
        query.invoke({"query": "select 1"})
    assert "hunter2" not in str(caught.value)
