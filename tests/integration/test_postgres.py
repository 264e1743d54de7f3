"""PostgreSQL: opening it, sharing it between processes, and losing it in the middle of a run."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver
from postgres_server import PASSWORD, PostgresServer
from sqlalchemy import Engine

from agent.errors import ConfigurationError, ConflictError, DatabaseError, PersistenceError
from agent.persistence import ConversationStore, SQLSaver, full_text, open_checkpointer, schema
from agent.persistence.dialects import build_engine, for_writing
from agent.persistence.locations import database_url
from agent.persistence.postgres import create_schema
from agent.persistence.tables import REVISIONS, THREAD_TABLES, metadata

ROOT = Path(__file__).parents[2]
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def put(saver: SQLSaver, config: Any, *texts: str) -> Any:
    checkpoint = empty_checkpoint()
    version = saver.get_next_version(len(texts), None)
    checkpoint["channel_values"] = {"messages": [HumanMessage(text, id=text) for text in texts]}
    checkpoint["channel_versions"] = {"messages": version}
    return saver.put(config, checkpoint, {"source": "loop", "step": len(texts)}, {"messages": version})


def texts(saver: SQLSaver, config: Any = CONFIG) -> list[str]:
    found: Any = saver.get_tuple(config)
    return [message.text for message in found.checkpoint["channel_values"]["messages"]]


# Opening


def patient(url: str) -> str:
    """The same address; connecting to it may take long, however soon a test gives up waiting for others."""
    return f"{url}{'&' if '?' in url else '?'}connect_timeout=60"


def failure(url: str) -> str:
    opening = open_checkpointer(patient(url), timeout=2)
    with pytest.raises((ConfigurationError, DatabaseError)) as caught, opening:
        pass
    seen: BaseException | None = caught.value
    while seen is not None:  # a traceback shows the causes as well
        for secret in (PASSWORD, quote(PASSWORD, safe=""), "tiger"):
            assert secret not in str(seen)
        seen = None if seen.__suppress_context__ and seen.__cause__ is None else seen.__cause__
    return str(caught.value)


def test_what_is_wrong_with_an_address_is_said(postgres: PostgresServer) -> None:
    assert "check the user and the password" in failure(postgres.url(password="tiger"))
    assert "check the user and the password" in failure(postgres.url(user="nobody-known"))
    assert "createdb makes a database" in failure(postgres.url("missing"))
    assert "is the server running" in failure("postgresql://scott:tiger@127.0.0.1:1/x")
    assert "check the host" in failure("postgresql://scott:tiger@no-such-host.invalid/x")
    assert "is the server running" in failure("postgresql://127.0.0.1:1/x?user=scott&password=tiger")
    assert "no database URL" in failure("postgresql://scott:tiger@host:port/x")
    assert "write postgresql://" in failure("postgresql+asyncpg://scott:tiger@127.0.0.1/x")
    assert "invalid connection option" in failure("postgresql://scott:tiger@127.0.0.1/x?nonsense=1")


def test_a_server_that_is_just_going_away_takes_a_connection_and_drops_it() -> None:
    def drop() -> None:
        with suppress(OSError):
            while True:
                server.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drop, daemon=True).start()
        said = failure(f"postgresql://scott:tiger@127.0.0.1:{server.getsockname()[1]}/x")
        server.shutdown(socket.SHUT_RDWR)
    assert "is the server running" in said


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_ways_to_write_the_scheme(postgres_url: str, scheme: str) -> None:
    with open_checkpointer(postgres_url.replace("postgresql", scheme)) as saver:
        put(saver, CONFIG, "x")
    with open_checkpointer(postgres_url) as saver:
        assert texts(saver) == ["x"]


def test_a_user_who_may_not_create_is_told_what_to_grant(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.execute("CREATE ROLE reader LOGIN PASSWORD 'tiger'")
    name = postgres_url.rpartition("/")[2]
    assert "grant this user CREATE" in failure(postgres.url(name, user="reader", password="tiger"))


def test_an_encoding_that_cannot_hold_every_character(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    assert "ENCODING 'UTF8'" in failure(postgres.url("latin"))


def test_a_database_is_shared_with_an_application(postgres: PostgresServer, postgres_url: str) -> None:
    with PostgresSaver.from_conn_string(postgres_url) as official:
        official.setup()
    postgres.execute("CREATE TABLE alembic_version (version_num text)", url=postgres_url)
    postgres.execute("INSERT INTO alembic_version VALUES ('theirs')", url=postgres_url)
    with open_checkpointer(postgres_url) as saver:
        put(saver, CONFIG, "x")
    with open_checkpointer(postgres_url) as saver:
        assert texts(saver) == ["x"]
    assert postgres.execute("SELECT * FROM public.alembic_version", url=postgres_url) == [("theirs",)]
    assert postgres.execute("SELECT count(*) FROM public.checkpoints", url=postgres_url) == [(0,)]


def test_a_schema_of_the_users_choice(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.execute("CREATE SCHEMA mine", url=postgres_url)
    with open_checkpointer(f"{postgres_url}?options=-csearch_path%3Dmine") as saver:
        put(saver, CONFIG, "x")
    assert postgres.execute("SELECT count(*) FROM mine.checkpoints", url=postgres_url) == [(1,)]


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    made = build_engine(database_url(postgres_url), timeout=5, connections=2, synchronous="normal")
    yield made
    made.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_older_schemas_are_migrated(engine: Engine, postgres_url: str, revision: str) -> None:
    with for_writing(engine).begin() as connection:
        create_schema(connection)
        schema.migrate(connection, to=revision)
        connection.exec_driver_sql(
            "INSERT INTO threads (thread_id, created_at, updated_at, status) VALUES ('t', 'a', 'b', 'idle')"
        )
    with open_checkpointer(postgres_url) as saver:
        put(saver, CONFIG, "after the migration")
        assert [found.id for found in ConversationStore(saver).search("migration")] == ["t"]
        assert ConversationStore(saver).list()[0].created_at == "a"
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    # The index for searching is no part of SQLAlchemy's tables, and comments are for readers of the source.
    found = [str(each) for each in differences if "modify_comment" not in str(each)]
    assert [each for each in found if "'indexed'" not in each and "message_texts_indexed" not in each] == []


def test_a_newer_schema_is_refused(postgres: PostgresServer, postgres_url: str) -> None:
    with open_checkpointer(postgres_url):
        pass
    postgres.execute("UPDATE vllm_agent.alembic_version SET version_num = '9999'", url=postgres_url)
    assert "newer version of vllm-agent" in failure(postgres_url)


# What PostgreSQL alone refuses


def test_texts_that_postgres_refuses(postgres_url: str) -> None:
    long = " ".join(f"word{n}" for n in range(300_000))  # an index entry of more than the 1 MiB allowed
    with open_checkpointer(postgres_url) as saver:
        config = put(saver, CONFIG, "a zero\0 character", long)
        saver.put_writes(config, [("messages", HumanMessage("nul \0"))], "task")
        store = ConversationStore(saver)
        assert store.list()[0].title == "a zero character"
        assert [found.position for found in store.search("character")] == [0]
        assert [found.position for found in store.search("word77")] == [1]
        assert texts(saver) == ["a zero\0 character", long]
        for hostile in ("\\", "'\\", "a\\' | b", "foo:*&!(", "\0"):
            store.search(hostile)


def test_deleted_means_gone(postgres: PostgresServer, postgres_url: str) -> None:
    with open_checkpointer(postgres_url) as saver:
        put(saver, CONFIG, "my password is swordfish")
        put(saver, {"configurable": {"thread_id": "other", "checkpoint_ns": ""}}, "hello")
        store = ConversationStore(saver)
        assert store.search("swordfish")
        postgres.execute("CHECKPOINT")
        assert _stored_in_a_file(postgres, b"swordfish")
        store.delete("t", vacuum=True)
        postgres.execute("CHECKPOINT")
        assert not _stored_in_a_file(postgres, b"swordfish")
        assert [each.id for each in store.list()] == ["other"]


def test_vacuum_takes_every_table() -> None:
    [statement] = full_text.FORGET["postgresql"]
    assert statement == f"VACUUM (FULL) {', '.join(table.name for table in THREAD_TABLES)}"


def _stored_in_a_file(postgres: PostgresServer, text: bytes) -> bool:
    """Whether a file of the server holds the text.

    The server makes and removes files all the time (caches of its catalogue, tables that a vacuum
    has written anew), so one may be gone between its listing and its reading.
    """
    for path in (postgres.folder / "data" / "base").rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and text in path.read_bytes():
                return True
    return False


# Several writers

WRITER = (ROOT / "tests" / "integration" / "test_persistence_processes.py").read_text()
WRITER = WRITER.partition('WRITER = """')[2].partition('"""')[0]


def test_four_processes_share_one_database(postgres_url: str) -> None:
    """All of them find it empty, and each has eight conversations."""
    writers = []
    for n in range(4):
        names = ",".join(f"p{n}-{c}" for c in range(8))
        command = [sys.executable, "-c", WRITER, postgres_url, names, "4"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        writers.append(subprocess.Popen(command, cwd=ROOT, **pipes))
    counts: dict[str, int] = {}
    for writer in writers:
        output, errors = writer.communicate(timeout=400)
        assert writer.returncode == 0, errors
        counts |= {name: int(count) for name, count in (line.split() for line in output.splitlines())}
    assert len(counts) == 32
    with open_checkpointer(postgres_url) as saver:
        for name, count in counts.items():
            said = texts(saver, {"configurable": {"thread_id": name}})
            assert [text.split()[1] for text in said] == [str(n) for n in range(count)]
        assert {each.id: each.message_count for each in ConversationStore(saver).list()} == counts


def test_of_two_writers_one_wins(postgres_url: str) -> None:
    with open_checkpointer(postgres_url) as one, open_checkpointer(postgres_url) as two:
        put(one, CONFIG, "0")
        for number in range(1, 11):
            barrier = threading.Barrier(2)

            def go_on(saver: SQLSaver, name: str, barrier: threading.Barrier = barrier) -> bool:
                found: Any = saver.get_tuple(CONFIG)
                said = [m.text for m in found.checkpoint["channel_values"]["messages"]]
                barrier.wait(30)
                try:
                    put(saver, found.config, *said, name)
                except ConflictError:
                    return False
                return True

            with ThreadPoolExecutor(2) as pool:
                won = [
                    pool.submit(go_on, saver, f"{number}{name}") for saver, name in ((one, "a"), (two, "b"))
                ]
                assert sorted(each.result() for each in won) == [False, True]
        assert len(texts(one)) == 11
        history = list(one.list(CONFIG))
        parents = [
            each.parent_config["configurable"]["checkpoint_id"] for each in history if each.parent_config
        ]
        assert len(parents) == len(set(parents)) == 10


def test_a_writer_who_holds_a_conversation_too_long(postgres: PostgresServer, postgres_url: str) -> None:
    import psycopg

    with open_checkpointer(patient(postgres_url), timeout=0.5) as saver:
        config = put(saver, CONFIG, "a")
        with psycopg.connect(postgres_url) as other:
            other.execute("UPDATE vllm_agent.threads SET title = 'held'")
            with pytest.raises(DatabaseError, match="raise timeout="):
                put(saver, config, "a", "b")
            other.rollback()
        put(saver, config, "a", "b")
        assert texts(saver) == ["a", "b"]


# Faults


def test_restarts_in_the_middle_of_a_run_are_waited_out(postgres: PostgresServer, postgres_url: str) -> None:
    """Five conversations go on while the server is killed and started three times."""

    async def converse(saver: SQLSaver, name: str, stop: asyncio.Event) -> tuple[int, int]:
        config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
        said: list[str] = []
        calls = 0
        while not stop.is_set():
            said.append(f"{name} {len(said)}")
            checkpoint = empty_checkpoint()
            version = saver.get_next_version(len(said), None)
            checkpoint["channel_values"] = {"messages": [HumanMessage(text, id=text) for text in said]}
            checkpoint["channel_versions"] = {"messages": version}
            config = await saver.aput(config, checkpoint, {"source": "loop"}, {"messages": version})
            await saver.aput_writes(config, [("messages", [HumanMessage("x")])], f"task {len(said)}")
            begun = await saver.journal.abegin(thread_id=name, call_id=f"call {calls}", tool="pay")
            assert begun is None, "a call that begins once was begun twice"
            calls += 1
        return len(said), calls

    async def main() -> dict[str, tuple[int, int]]:
        async with open_checkpointer(postgres_url, timeout=60) as saver:
            stop = asyncio.Event()
            names = [f"t{n}" for n in range(5)]
            tasks = [asyncio.create_task(converse(saver, name, stop)) for name in names]
            for _ in range(3):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(postgres.restart)
            await asyncio.sleep(0.5)
            stop.set()
            return dict(zip(names, await asyncio.gather(*tasks), strict=True))

    counts = asyncio.run(main())
    with open_checkpointer(postgres_url) as saver:
        for name, (count, calls) in counts.items():
            here: Any = {"configurable": {"thread_id": name}}
            assert texts(saver, here) == [f"{name} {n}" for n in range(count)]
            assert len([*saver.list(here)]) == count
            assert all(each.pending_writes for each in saver.list(here))
            assert len(asyncio.run(saver.journal.aentries(thread_id=name))) == calls


def test_a_server_that_stays_away_is_an_error_and_the_next_attempt_works(
    postgres: PostgresServer, postgres_url: str
) -> None:
    with open_checkpointer(patient(postgres_url), timeout=1) as saver:
        config = put(saver, CONFIG, "a")
        postgres.stop()
        try:
            begin = time.monotonic()
            with pytest.raises(DatabaseError, match="is the server running") as caught:
                put(saver, config, "a", "b")
            assert PASSWORD not in str(caught.value)
            assert time.monotonic() - begin >= 1, "it was not waited for"
            with pytest.raises(DatabaseError, match="is the server running"):
                saver.get_tuple(CONFIG)
        finally:
            postgres.start()
        assert texts(saver) == ["a"]
        put(saver, config, "a", "b")
        assert texts(saver) == ["a", "b"]


def test_a_connection_that_was_lost_is_replaced_also_when_the_time_is_over(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was kept waiting may find its time used up before it hears of the loss."""
    with open_checkpointer(patient(postgres_url)) as saver:
        config = put(saver, CONFIG, "a")
        postgres.restart()
        monkeypatch.setattr("agent.persistence.postgres_transactions._Patience.is_over", lambda _: True)
        put(saver, config, "a", "b")
        assert texts(saver) == ["a", "b"]


def test_more_at_once_than_connections_wait(postgres_url: str) -> None:
    async def main() -> None:
        async with open_checkpointer(postgres_url, connections=1, timeout=60) as saver:
            config: Any = {"configurable": {"thread_id": "t"}}
            assert await asyncio.gather(*(saver.aget_tuple(config) for _ in range(50))) == [None] * 50

    asyncio.run(main())


def test_no_connection_becomes_free(postgres_url: str) -> None:
    with open_checkpointer(patient(postgres_url), connections=1, timeout=0.3) as saver:

        def holding(_: Any) -> None:
            with ThreadPoolExecutor(1) as other, pytest.raises(DatabaseError, match="raise connections="):
                other.submit(put, saver, CONFIG, "x").result()

        saver.database.read(holding)
        put(saver, CONFIG, "x")
        assert texts(saver) == ["x"]


def test_the_server_has_no_connection_left(postgres: PostgresServer, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute("CREATE ROLE few LOGIN PASSWORD 'tiger' CONNECTION LIMIT 1")
    postgres.execute(f"GRANT CREATE ON DATABASE {name} TO few")
    few = postgres.url(name, user="few", password="tiger")
    with open_checkpointer(patient(few), timeout=0.5) as saver:
        put(saver, CONFIG, "x")
        assert "max_connections" in failure(few)
        with pytest.raises(PersistenceError, match="max_connections"):
            saver.database.read(lambda _: saver.get_tuple(CONFIG))  # needs a second one
        assert texts(saver) == ["x"]
