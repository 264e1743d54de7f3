"""Migrations: every older schema becomes the present one, with what was in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from sqlalchemy import create_engine, inspect, text

from agent.persistence import ConversationStore, open_checkpointer, schema
from agent.persistence.tables import REVISIONS, metadata

CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def migrated(path: Path, *, to: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        schema.migrate(connection, to=to)
    engine.dispose()


def described(path: Path) -> dict[str, Any]:
    engine = create_engine(f"sqlite:///{path}")
    found: dict[str, Any] = {}
    inspector = inspect(engine)
    for table in inspector.get_table_names():
        columns = [
            (c["name"], str(c["type"]), c["nullable"], c["primary_key"]) for c in inspector.get_columns(table)
        ]
        indexes = sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table))
        found[table] = (sorted(columns), indexes)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT type, name FROM sqlite_master WHERE type = 'trigger'"))
        found["triggers"] = sorted(name for _, name in rows)
    engine.dispose()
    found.pop("alembic_version")
    return found


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    migrated(tmp_path / "migrated.sqlite", to="head")
    with open_checkpointer(tmp_path / "created.sqlite"):
        pass
    assert described(tmp_path / "migrated.sqlite") == described(tmp_path / "created.sqlite")


def test_every_table_is_in_a_migration(tmp_path: Path) -> None:
    migrated(tmp_path / "c.sqlite", to="head")
    engine = create_engine(f"sqlite:///{tmp_path / 'c.sqlite'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, metadata)
    assert [each for each in differences if "message_index" not in str(each)] == []


def test_the_list_of_revisions_is_the_scripts() -> None:
    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert tuple(each.revision for each in reversed([*scripts.walk_revisions()])) == REVISIONS


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_older_file_is_migrated_when_opened(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "old.sqlite"
    migrated(path, to=revision)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO threads (thread_id, created_at, updated_at, status) "
                "VALUES ('t', 'a', 'b', 'idle')"
            )
        )
    engine.dispose()
    with open_checkpointer(path) as saver:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": [HumanMessage("after the migration")]}
        checkpoint["channel_versions"] = {"messages": "1"}
        saver.put(CONFIG, checkpoint, {"source": "loop"}, {"messages": "1"})
        [found] = ConversationStore(saver).search("migration")
        assert found.id == "t"
        assert ConversationStore(saver).list()[0].created_at == "a"


def test_a_current_file_opens_without_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from agent.persistence import open_checkpointer\n"
        f"with open_checkpointer({str(tmp_path / 'c.sqlite')!r}): pass\n"
        f"with open_checkpointer({str(tmp_path / 'c.sqlite')!r}): pass\n"
        "assert 'alembic' not in sys.modules and 'langgraph.graph' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], timeout=120)
