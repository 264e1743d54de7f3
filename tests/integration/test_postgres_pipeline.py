"""Statements in bundles on a real PostgreSQL: what is committed, what is not, and what stays prepared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import Text, bindparam, func, insert, select, text
from sqlalchemy.engine import make_url

from agent.errors import DatabaseError
from agent.persistence import postgres_pipeline
from agent.persistence.database import Database
from agent.persistence.postgres_pipeline import _positional
from agent.persistence.tables import thread_tags
from agent.persistence.transactions import Transaction

_TAG = insert(thread_tags)
_ALL = select(thread_tags.c.tag).where(thread_tags.c.thread_id == bindparam("thread_id"))


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    with closing(Database(make_url(postgres_url), connections=1)) as database:
        yield database


def _tags(database: Database) -> list[str]:
    return sorted(row[0] for row in database.read(lambda each: each.all(_ALL, {"thread_id": "t"})))


def _add(transaction: Transaction, *tags: str) -> None:
    transaction.run(_TAG, *({"thread_id": "t", "tag": tag} for tag in tags))


def test_names_become_numbers() -> None:
    assert _positional("a = %(a)s AND b %% 2 = %(b)s OR c = %(a)s") == (
        b"a = $1 AND b % 2 = $2 OR c = $1",
        ("a", "b"),
    )


def test_a_write_is_committed_without_saying_so(database: Database) -> None:
    database.write(lambda each: _add(each, "one", "two"))
    assert _tags(database) == ["one", "two"]


@pytest.mark.parametrize("asks", [False, True])
def test_work_that_fails_leaves_nothing_behind(database: Database, asks: bool) -> None:
    def work(transaction: Transaction) -> None:
        _add(transaction, "one")
        if asks:  # so that it is on the server
            assert transaction.all(_ALL, {"thread_id": "t"}) == [("one",)]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        database.write(work)
    assert _tags(database) == []
    database.write(lambda each: _add(each, "two"))  # on the same connection
    assert _tags(database) == ["two"]


def test_a_statement_that_fails_takes_the_others_with_it(database: Database) -> None:
    with pytest.raises(DatabaseError, match="duplicate key"):
        database.write(lambda each: _add(each, "one", "two", "one", "three"))
    assert _tags(database) == []
    database.write(lambda each: _add(each, "one"))
    assert _tags(database) == ["one"]


def test_a_commit_that_fails_is_said_to(database: Database, postgres_url: str) -> None:
    """With a check that the server makes at the end: then every statement before has gone well."""
    _tags(database)  # makes the tables
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(
            "CREATE FUNCTION vllm_agent.refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'not today'; END$$"
        )
        other.execute(
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON vllm_agent.thread_tags "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vllm_agent.refuse()"
        )
    with pytest.raises(DatabaseError, match="not today"):
        database.write(lambda each: _add(each, "one"))
    assert _tags(database) == []
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("DROP TRIGGER late ON vllm_agent.thread_tags")
    database.write(lambda each: _add(each, "two"))
    assert _tags(database) == ["two"]


def test_a_read_writes_nothing_and_sees_one_moment(database: Database, postgres_url: str) -> None:
    def work(transaction: Transaction) -> None:
        before = transaction.all(_ALL, {"thread_id": "t"})
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute("INSERT INTO vllm_agent.thread_tags VALUES ('t', 'meanwhile')")
        assert transaction.all(_ALL, {"thread_id": "t"}) == before

    database.read(work)
    assert _tags(database) == ["meanwhile"]
    with pytest.raises(DatabaseError, match="read-only"):
        database.read(lambda each: _add(each, "one"))


def test_a_connection_keeps_so_many_statements_prepared(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pipeline, "_PREPARED", 3)
    of_several = select(thread_tags.c.tag).where(
        thread_tags.c.thread_id.in_(bindparam("several", expanding=True))
    )
    for count in (*range(1, 9), *range(1, 9)):
        database.read(lambda each, names=["t"] * count: each.all(of_several, {"several": names}))
    kept = text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'vllm%'")
    assert database.read(lambda each: each.once(kept)) == [(3,)]


def test_statements_are_prepared_again_after_a_failure(database: Database) -> None:
    for _ in range(3):
        with pytest.raises(DatabaseError, match="duplicate key"):
            database.write(lambda each: _add(each, "one", "one"))
        assert _tags(database) == []


def test_pieces_larger_than_any_buffer(database: Database) -> None:
    echo = select(bindparam("given", type_=Text))
    given = [str(number) * 4_000_000 for number in range(8)]
    answers = database.read(lambda each: each.together(*((echo, {"given": one}) for one in given)))
    assert answers == [[(one,)] for one in given]


def test_a_statement_larger_than_any_buffer(database: Database) -> None:
    length = select(func.length(bindparam("given", type_=Text)))
    assert database.write(lambda each: each.all(length, {"given": "x" * 40_000_000})) == [(40_000_000,)]
