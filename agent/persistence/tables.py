"""The tables that conversations live in, the same for SQLite and PostgreSQL.

A checkpoint row holds the small part of a state. What is big is kept once: a channel's value per version in
``channels``, and the elements of a long list (a message list, above all) once each in ``items``, where every
version of the list names them by runs of numbers. A conversation therefore grows with what was said, not with
the number of steps times its length.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
)
from sqlalchemy.dialects.postgresql import JSONB

from agent.persistence import full_text

REVISIONS = ("0001", "0002", "0003")
"""The schemas that there have been, oldest first; the tables below are the last. Each has a migration."""

metadata = MetaData()

# Ids and versions are compared byte by byte, as Python and SQLite do; PostgreSQL needs to be told.
_Key = Text().with_variant(Text(collation="C"), "postgresql")
_Json = JSON().with_variant(JSONB(), "postgresql")


def _key(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, _Key, nullable=False, primary_key=primary_key)


threads = Table(
    "threads",
    metadata,
    _key("thread_id", primary_key=True),
    Column("title", Text, comment="shortened first question, or what the user called it"),
    Column("created_at", _Key, nullable=False),
    Column("updated_at", _Key, nullable=False),
    Column("messages", Integer, comment="how many; NULL when only reading them all can tell"),
    Column("head_id", _Key, comment="the newest checkpoint of the root namespace"),
    Column("status", Text, nullable=False, comment="idle or unfinished, by the newest checkpoint"),
    Column("indexed_at", _Key, comment="up to which change its messages can be searched"),
    sqlite_with_rowid=False,
)
Index("threads_updated", threads.c.updated_at)

thread_tags = Table(
    "thread_tags",
    metadata,
    _key("thread_id", primary_key=True),
    _key("tag", primary_key=True),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _key("thread_id", primary_key=True),
    _key("ns", primary_key=True),
    _key("checkpoint_id", primary_key=True),
    Column("parent_id", _Key),
    Column("run_id", _Key),
    Column("type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("metadata", _Json, nullable=False),
    sqlite_with_rowid=False,
)
Index(
    "checkpoints_run",
    checkpoints.c.run_id,
    sqlite_where=checkpoints.c.run_id.is_not(None),
    postgresql_where=checkpoints.c.run_id.is_not(None),
)

channels = Table(
    "channels",
    metadata,
    _key("thread_id", primary_key=True),
    _key("ns", primary_key=True),
    _key("channel", primary_key=True),
    _key("version", primary_key=True),
    Column("type", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

items = Table(
    "items",
    metadata,
    _key("thread_id", primary_key=True),
    _key("ns", primary_key=True),
    _key("channel", primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("type", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

writes = Table(
    "writes",
    metadata,
    _key("thread_id", primary_key=True),
    _key("ns", primary_key=True),
    _key("checkpoint_id", primary_key=True),
    _key("task_id", primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    _key("task_path"),
    _key("channel"),
    Column("type", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("messages", Integer, comment="messages this write adds; NULL when it can do more than add"),
    sqlite_with_rowid=False,
)

tool_calls = Table(
    "tool_calls",
    metadata,
    _key("thread_id", primary_key=True),
    _key("call_id", primary_key=True),
    Column("tool", Text, nullable=False),
    Column("status", Text, nullable=False, comment="started or finished"),
    Column("attempts", Integer, nullable=False),
    Column("started_at", _Key, nullable=False),
    Column("finished_at", _Key),
    Column("owner", Text, nullable=False, comment="host:pid of the process that started it last"),
    Column("type", Text),
    Column("result", LargeBinary),
    sqlite_with_rowid=False,
)

message_texts = Table(
    "message_texts",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    _key("thread_id"),
    Column("position", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
)
Index("message_texts_thread", message_texts.c.thread_id)
for _dialect, _statements in full_text.DDL.items():
    for _statement in _statements:
        event.listen(message_texts, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]

revisions = Table("alembic_version", metadata, Column("version_num", Text, primary_key=True, nullable=False))

STATE_TABLES = (threads, thread_tags, checkpoints, channels, items, writes, tool_calls)
"""What a copy of a conversation needs."""

THREAD_TABLES = (*STATE_TABLES, message_texts)
"""Every table that holds a part of a conversation, by ``thread_id``."""
