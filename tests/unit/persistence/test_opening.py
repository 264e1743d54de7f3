"""Where conversations are kept, who may read them, and what an unusable place says."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from sqlalchemy import text

from agent.errors import ConfigurationError, DatabaseError, MissingExtraError
from agent.persistence import ConversationStore, import_langgraph_sqlite, open_checkpointer
from agent.persistence.locations import database_url

CONFIG: Any = {"configurable": {"thread_id": "t"}}


def fill(path: str | Path | None) -> None:
    with open_checkpointer(path) as saver:
        asyncio.run(saver.journal.abegin(thread_id="t", call_id="c", tool="f"))


def test_default_is_a_private_file_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_AGENT_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / "data" / name))
    with open_checkpointer() as saver:
        saver.get_tuple(CONFIG)
        directory = tmp_path / "data" / "vllm-agent"
        files = sorted(path.name for path in directory.iterdir())
        assert "conversations.sqlite" in files
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_home_variable_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_AGENT_HOME", str(tmp_path / "home"))
    fill(None)
    assert (tmp_path / "home" / "conversations.sqlite").is_file()


def test_ways_to_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "a b.sqlite")
    for where in (
        tmp_path / "a b.sqlite",
        expected,
        "a b.sqlite",
        f"sqlite:///{expected}",
        "sqlite:///a b.sqlite",
    ):
        assert database_url(where).database == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    for where in (tmp_path, "~", Path("~"), "~/"):
        assert database_url(where).database == str(tmp_path / "conversations.sqlite")
    assert database_url("~/a b.sqlite").database == expected
    for where in (":memory:", "sqlite://", "sqlite:///:memory:"):
        assert database_url(where).database in (None, "", ":memory:")


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.touch(mode=0o640)
    path.chmod(0o640)
    fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_memory_is_shared_by_threads_and_gone_afterwards() -> None:
    with open_checkpointer(":memory:") as saver:
        asyncio.run(saver.journal.abegin(thread_id="t", call_id="c", tool="f"))
        found: list[Any] = []
        thread = threading.Thread(
            target=lambda: found.append(asyncio.run(saver.journal.aentries(thread_id="t")))
        )
        thread.start()
        thread.join()
        assert list(found[0]) == ["c"]
    with open_checkpointer(":memory:") as saver:
        assert asyncio.run(saver.journal.aentries(thread_id="t")) == {}


@pytest.mark.parametrize("bad", ["nonsense://x", "mysql://host/db", "postgresql+nodriver://host/db"])
def test_not_a_database_we_know(bad: str) -> None:
    with pytest.raises(ConfigurationError), open_checkpointer(bad):
        pass


def test_postgres_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(MissingExtraError, match=r"vllm-agent\[postgres\]"),
        open_checkpointer("postgresql://localhost/none"),
    ):
        pass


def test_setting_that_is_none() -> None:
    wrong: Any = "off"
    with (
        pytest.raises(ConfigurationError, match="synchronous='off'"),
        open_checkpointer(":memory:", synchronous=wrong),
    ):
        pass


def test_a_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match="cannot open"), open_checkpointer(tmp_path / "file" / "c.sqlite"):
        pass
    with pytest.raises(DatabaseError, match="is a directory"), open_checkpointer(f"sqlite:///{tmp_path}"):
        pass


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look at" * 100, random.Random(7).randbytes(9000)]
)
def test_rubbish_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match="not a database"), open_checkpointer(path):
        pass
    assert path.read_bytes() == content


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    fill(path)
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(7).randbytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=str(path)):
        fill(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match="newer version of vllm-agent"), open_checkpointer(path):
        pass


def test_another_programs_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE checkpoints (thread_id TEXT)")
    with pytest.raises(DatabaseError, match="another program's tables"), open_checkpointer(path):
        pass


def test_use_after_closing(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path / "c.sqlite") as saver:
        pass
    with pytest.raises(DatabaseError, match="were closed"):
        saver.get_tuple(CONFIG)
    with pytest.raises(DatabaseError, match="were closed"):
        asyncio.run(saver.aget_tuple(CONFIG))


def test_a_writer_that_holds_on_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    fill(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with open_checkpointer(path, timeout=0.2) as saver:
        assert saver.get_tuple(CONFIG) is None  # reading goes on
        with pytest.raises(DatabaseError, match="locked"):
            saver.delete_thread("t")
        other.execute("COMMIT")
        saver.delete_thread("t")
    other.close()


@pytest.fixture
def not_root(tmp_path: Path) -> Iterator[None]:
    """Permissions mean nothing to root: be somebody else for the test."""
    if os.geteuid() != 0:
        yield
        return
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory.name.startswith("pytest-"):
            directory.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("not_root")
def test_a_read_only_file_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    fill(path)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    with open_checkpointer(path) as saver:
        assert saver.get_tuple(CONFIG) is None
        assert ConversationStore(saver).list() == []
        with pytest.raises(DatabaseError, match=r"read-?only"):
            saver.delete_thread("t")
    path.chmod(0o000)
    with pytest.raises(DatabaseError, match="cannot open"), open_checkpointer(path):
        pass


def test_patience_without_end(where: str) -> None:
    with open_checkpointer(where, timeout=1e12) as saver, open_checkpointer(where, timeout=1e12) as other:
        written, holding = [], threading.Event()

        def slow(_: Any) -> None:
            holding.set()
            time.sleep(0.3)

        def hold() -> None:
            saver.database.write(lambda each: (each.once(text("DELETE FROM threads")), slow(each)))

        holder = threading.Thread(target=hold)
        holder.start()
        holding.wait(30)
        other.database.write(lambda each: written.append(each.once(text("DELETE FROM threads"))))
        holder.join()
        assert len(written) == 1


def test_a_file_in_the_home_directory_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with SqliteSaver.from_conn_string(str(tmp_path / "theirs.sqlite")) as theirs:
        theirs.setup()
    with open_checkpointer(":memory:") as saver:
        assert import_langgraph_sqlite(saver, "~/theirs.sqlite").imported == ()
