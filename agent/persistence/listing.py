"""The list of conversations from its table alone.

It needs neither LangGraph nor LangChain, so a command that only lists starts in half the time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, case, exists, select

from agent.persistence.database import Database
from agent.persistence.locations import database_url
from agent.persistence.tables import thread_tags, threads, writes

_INTERRUPT = "__interrupt__"
"""LangGraph's channel for questions to a person."""


@dataclass(frozen=True)
class Conversation:
    """What a list of conversations shows of one."""

    id: str
    """The thread id that resumes it."""
    title: str | None
    """The first question, shortened, or what it was renamed to."""
    created_at: str
    """ISO 8601, UTC."""
    updated_at: str
    """ISO 8601, UTC."""
    message_count: int
    """Messages in its state, of every kind."""
    status: str
    """``idle``, ``interrupted`` (it waits for an answer) or ``unfinished`` (it has steps to run)."""
    tags: tuple[str, ...]
    """In alphabetical order."""


@dataclass(frozen=True)
class Listed:
    """A row of the list; the table does not know every count and title."""

    id: str
    title: str | None
    created_at: str
    updated_at: str
    message_count: int | None
    status: str
    tags: tuple[str, ...]

    def complete(self) -> Conversation | None:
        """The conversation, if the table says all about it."""
        if self.message_count is None or (self.title is None and self.message_count):
            return None
        return Conversation(**(vars(self) | {"message_count": self.message_count}))


def list_conversations(
    url: str | os.PathLike[str] | None = None,
    *,
    limit: int = 50,
    offset: int = 0,
    tag: str | None = None,
    encryption_key: str | bytes | None = None,
) -> Sequence[Conversation]:
    """Conversations of a database that need not be open, the last used first.

    Args:
        url: As for :func:`agent.persistence.open_checkpointer`.
        limit: At most so many.
        offset: After so many.
        tag: Only those with this tag.
        encryption_key: As for :func:`agent.persistence.open_checkpointer`.

    Raises:
        DatabaseError: It cannot be opened.
    """
    with closing(Database(database_url(url))) as database:
        found = [row.complete() for row in rows(database, newest(limit=limit, offset=offset, tag=tag))]
    if all(found):
        return [each for each in found if each is not None]
    from agent.persistence.conversations import ConversationStore
    from agent.persistence.opening import open_checkpointer

    with open_checkpointer(url, encryption_key=encryption_key) as saver:
        return ConversationStore(saver).list(limit=limit, offset=offset, tag=tag)


def newest(*, limit: int, offset: int, tag: str | None) -> Select[Any]:
    """The statement for a page of the list."""
    statement = every().order_by(threads.c.updated_at.desc()).limit(limit).offset(offset)
    if tag is None:
        return statement
    tagged = exists().where(thread_tags.c.thread_id == threads.c.thread_id, thread_tags.c.tag == tag)
    return statement.where(tagged)


def every() -> Select[Any]:
    """The statement for all of the list, in no order."""
    waits = exists().where(
        writes.c.thread_id == threads.c.thread_id,
        writes.c.ns == "",
        writes.c.checkpoint_id == threads.c.head_id,
        writes.c.channel == _INTERRUPT,
    )
    return select(
        threads.c.thread_id,
        threads.c.title,
        threads.c.created_at,
        threads.c.updated_at,
        threads.c.messages,
        case((waits, "interrupted"), else_=threads.c.status),
    )


def rows(database: Database, statement: Select[Any]) -> Sequence[Listed]:
    """Run one of the statements above; two queries, however long the list."""
    found = database.read(lambda transaction: transaction.once(statement))
    if not found:
        return []
    tags: dict[str, list[str]] = {row[0]: [] for row in found}
    tagged = select(thread_tags).where(thread_tags.c.thread_id.in_(tags)).order_by(thread_tags.c.tag)
    for thread_id, tag in database.read(lambda transaction: transaction.once(tagged)):
        tags[thread_id].append(tag)
    return [
        Listed(thread_id, title, created_at, updated_at, count, status, tuple(tags[thread_id]))
        for thread_id, title, created_at, updated_at, count, status in found
    ]
