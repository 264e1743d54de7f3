"""SQL: held to reading by the database, whatever the statement looks like, and within its limits."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest
from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool

from tools import ToolError, ToolInputError, ToolRegistrationError, call, policy_of
from tools.builtin import build_sql_tools

LARGE = "with recursive c(x) as (select 1 union all select x + 1 from c) select {} from c"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "create table town(id integer primary key, name text not null);"
            "create table person(name text, town integer references town(id), picture blob);"
            "create view rich as select name from person;"
            "insert into town values (1, 'Rome'), (2, 'a|b' || char(10) || 'c');"
            "insert into person values ('Ann', 1, x'00ff'), (null, null, null);"
        )
    connection.close()
    return path


def tools_of(file: Path, **options: object) -> tuple[BaseTool, BaseTool]:
    query, schema = build_sql_tools(f"sqlite:///{file}", **options)  # type: ignore[arg-type]
    return query, schema


def test_rows_are_shown_as_a_table(file):
    query, _ = tools_of(file)
    assert query.invoke({"query": "select * from person order by name desc"}) == (
        "name | town | picture\nAnn | 1 | (2 bytes)\nNULL | NULL | NULL"
    )
    assert query.invoke({"query": "select name from town where id = 2"}) == "name\na\\|b\\nc"
    assert query.invoke({"query": "select 1 as n where false"}) == "n\n[No rows.]"
    assert "SCAN town" in query.invoke({"query": "/* why */ explain query plan select * from town"})


def test_the_schema(file):
    _, schema = tools_of(file)
    assert schema.invoke({}).splitlines() == [
        "person(name TEXT, town INTEGER, picture BLOB, town → town)",
        "rich(name TEXT)",
        "town(id INTEGER primary key, name TEXT)",
    ]
    assert schema.invoke({"table": "town"}).count("\n") == 0
    with pytest.raises(ToolInputError, match=r"'twon'\. Did you mean town\?"):
        schema.invoke({"table": "twon"})


ATTACKS = [
    "delete from town",
    "with x as (select 1) delete from town",
    "with x as (select 1) insert into town select 9, 'x' from x",
    "-- select\nupdate town set name = ''",
    "select 1; drop table town",
    "explain delete from town; delete from town",
    "pragma query_only = off",
    "select * from pragma_query_only",
    "select * from pragma_writable_schema(1)",
    "attach database '{evil}' as evil",
    "vacuum into '{evil}'",
    "explain attach database '{evil}' as evil",
    "select load_extension('{evil}')",
    "select writefile('{evil}', 'x')",
    "create temp table t(x)",
    "begin immediate",
    "commit; delete from town",
    "reindex",
    "",
    ";",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_written_whatever_is_tried(file, tmp_path, attack):
    before = file.read_bytes()
    query, _ = tools_of(file)
    with pytest.raises((ToolInputError, ToolError)):
        query.invoke({"query": attack.format(evil=tmp_path / "evil")})
    assert file.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shop.db"]


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.strip("; ")])
def test_it_is_the_database_that_refuses_and_not_the_first_word(file, tmp_path, attack, monkeypatch):
    monkeypatch.setattr("tools.builtin.sql._READING", type("Any", (), {"__contains__": lambda *_: True})())
    before = file.read_bytes()
    query, _ = tools_of(file)
    outcome = call(
        query,
        ToolCall(
            name="sql_query", args={"query": attack.format(evil=tmp_path / "evil")}, id="1", type="tool_call"
        ),
    )
    assert file.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shop.db"]
    if attack not in ("begin immediate", "reindex"):  # which change nothing here by themselves
        assert not outcome.ok


@pytest.mark.parametrize("what", ["count(*)", "x"])
def test_a_statement_without_an_end_is_stopped_or_cut(file, what):
    query, _ = tools_of(file, timeout=60 if what == "x" else 1, max_rows=10)
    if what == "x":
        text = query.invoke({"query": LARGE.format(what)})
        assert text.splitlines()[-1].startswith("[Only the first 10 rows")
        assert len(text.splitlines()) == 12
    else:
        with pytest.raises(ToolError, match="took longer than 1 s"):
            query.invoke({"query": LARGE.format(what)})


def test_one_value_cannot_fill_the_memory(file):
    query, _ = tools_of(file)
    with pytest.raises(ToolInputError, match="too big"):
        query.invoke({"query": "select hex(zeroblob(500000000))"})
    long = query.invoke({"query": "select printf('%.*c', 100000, 'a')"})
    assert len(long) < 1000
    assert "(100,000 characters)" in long


def test_writing_is_allowed_only_when_asked_for_and_then_asks(file):
    query, _ = tools_of(file, writable=True)
    assert policy_of(query).approval
    assert not policy_of(query).idempotent
    request = ToolCall(
        name="sql_query", args={"query": "insert into town values (3, 'Bonn')"}, id="1", type="tool_call"
    )
    assert "approval" in call(query, request).message.text
    assert call(query, request, approved=True).message.text == "Done. 1 rows changed."
    reader, _ = tools_of(file)
    assert "Bonn" in reader.invoke({"query": "select name from town where id = 3"})
    renamed = (
        "with new(name) as (select 'Bonn am Rhein') update town set name = new.name from new where id = 3"
    )
    assert query.invoke({"query": renamed}) == "Done. 1 rows changed."
    returned = query.invoke({"query": "insert into town values (4, 'Ulm') returning name"})
    assert returned == "name\nUlm"
    assert "Ulm" in reader.invoke({"query": "select name from town where id = 4"})
    with pytest.raises((ToolInputError, ToolError)):  # another file is another database
        query.invoke({"query": f"attach database '{file}.other' as other"})


def test_mistakes_are_answered_with_the_databases_words(file):
    query, _ = tools_of(file)
    with pytest.raises(ToolInputError, match="no such column: nme"):
        query.invoke({"query": "select nme from town"})


@pytest.mark.parametrize("name", ["postgresql", "postgres", "postgresql+psycopg"])
def test_names_of_postgresql(name):
    assert "(postgresql)" in build_sql_tools(f"{name}://me@127.0.0.1:1/shop")[0].description


def test_a_missing_file_is_not_made(tmp_path):
    query, _ = tools_of(tmp_path / "no.db", writable=True)
    with pytest.raises((ToolInputError, ToolError), match="unable to open"):
        query.invoke({"query": "select 1"})
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense with hunter2", "no address of a database"),
        ("mysql://me:hunter2@localhost/shop", "cannot be held to reading"),
        ("postgresql+asyncpg://me:hunter2@localhost/shop", "psycopg"),
        ("$NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
    ],
)
def test_what_cannot_be_used_is_refused_without_showing_a_password(url, words):
    with pytest.raises(ToolRegistrationError, match=words) as caught:
        build_sql_tools(url)
    assert "hunter2" not in str(caught.value)


def test_the_address_may_come_from_the_environment(file, monkeypatch):
    monkeypatch.setenv("SHOP", f"sqlite:///{file}")
    query, _ = build_sql_tools("$SHOP")
    assert "Rome" in query.invoke({"query": "select name from town"})


def test_sqlalchemy_is_imported_when_a_database_is_named_and_not_before():
    import subprocess

    code = "import tools.builtin, sys; print(*{'sqlalchemy', 'httpx', 'bs4'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
