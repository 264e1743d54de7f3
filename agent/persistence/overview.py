"""What the table of conversations says of each of them, as one statement of SQLAlchemy Core."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, case, exists, select

from agent.persistence import given
from agent.persistence.database import Database
from agent.persistence.statements import MAX_IN
from agent.persistence.tables import thread_tags, threads, writes
from agent.persistence.transactions import Record

_INTERRUPT = "__interrupt__"
"""LangGraph's channel for questions to a person."""
_SUGGESTIONS, _LOOKED_AT = 3, 200


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
    """Messages in its state, of every kind; 0 where they are damaged and were never counted."""
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


def newest(*, limit: int, offset: int, tag: str | None) -> Select[Any]:
    """The statement for a page of the list.

    Raises:
        ConfigurationError: An argument is no number, or no tag.
    """
    first, most = given.number("offset", offset), given.number("limit", limit)
    statement = every().order_by(threads.c.updated_at.desc()).limit(most).offset(first)
    if tag is None:
        return statement
    own = thread_tags.c.thread_id == threads.c.thread_id
    tagged = exists().where(own, thread_tags.c.tag == given.tag(tag))
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
    """Run one of the statements above; a query more for some hundred conversations."""
    found = _read(database, statement)
    tags: dict[str, list[str]] = {row[0]: [] for row in found}
    ids = [*tags]
    for start in range(0, len(ids), MAX_IN):
        one_of = thread_tags.c.thread_id.in_(ids[start : start + MAX_IN])
        tagged = select(thread_tags).where(one_of).order_by(thread_tags.c.tag)
        for thread_id, tag in _read(database, tagged):
            tags[thread_id].append(tag)
    return [
        Listed(thread_id, title, created_at, updated_at, count, status, tuple(tags[thread_id]))
        for thread_id, title, created_at, updated_at, count, status in found
    ]


def suggestion(database: Database, prefix: str) -> str:
    """What to say about an id that begins no conversation: ids that are close, or the last one used."""
    last_used = select(threads.c.thread_id).order_by(threads.c.updated_at.desc()).limit(_LOOKED_AT)
    recent = [row[0] for row in _read(database, last_used)]
    if close := difflib.get_close_matches(prefix, recent, n=_SUGGESTIONS, cutoff=0.5):
        return f" Did you mean {' or '.join(close)}?"
    return f" The last one used is {recent[0]}" if recent else " There is none yet."


def _read(database: Database, statement: Select[Any]) -> Sequence[Record]:
    return database.read(lambda transaction: transaction.once(statement))
