"""Threads, tags, checkpoints, channel values, list elements, writes, the tool journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def _create(name: str, keys: tuple[str, ...], *columns: sa.Column[object]) -> None:
    keyed = [sa.Column(key, _KEY, nullable=False, primary_key=True) for key in keys]
    op.create_table(name, *keyed, *columns, sqlite_with_rowid=False)


def _number(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer, primary_key=True, nullable=False, autoincrement=False)


def _value() -> tuple[sa.Column[object], sa.Column[object]]:
    return sa.Column("type", sa.Text, nullable=False), sa.Column("value", sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Create the first schema."""
    _create(
        "threads",
        ("thread_id",),
        sa.Column("title", sa.Text),
        sa.Column("created_at", _KEY, nullable=False),
        sa.Column("updated_at", _KEY, nullable=False),
        sa.Column("messages", sa.Integer),
        sa.Column("head_id", _KEY),
        sa.Column("status", sa.Text, nullable=False),
    )
    op.create_index("threads_updated", "threads", ["updated_at"])
    _create("thread_tags", ("thread_id", "tag"))
    _create(
        "checkpoints",
        ("thread_id", "ns", "checkpoint_id"),
        sa.Column("parent_id", _KEY),
        sa.Column("run_id", _KEY),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("metadata", _JSON, nullable=False),
    )
    by_run = sa.text("run_id IS NOT NULL")
    op.create_index(
        "checkpoints_run", "checkpoints", ["run_id"], sqlite_where=by_run, postgresql_where=by_run
    )
    _create("channels", ("thread_id", "ns", "channel", "version"), *_value())
    _create("items", ("thread_id", "ns", "channel"), _number("seq"), *_value())
    _create(
        "writes",
        ("thread_id", "ns", "checkpoint_id", "task_id"),
        _number("idx"),
        sa.Column("task_path", _KEY, nullable=False),
        sa.Column("channel", _KEY, nullable=False),
        *_value(),
        sa.Column("messages", sa.Integer),
    )
    _create(
        "tool_calls",
        ("thread_id", "call_id"),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started_at", _KEY, nullable=False),
        sa.Column("finished_at", _KEY),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("type", sa.Text),
        sa.Column("result", sa.LargeBinary),
    )
