"""Looking for what is wrong with stored conversations, and mending what can be mended without a guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import delete, func, not_, select, text
from sqlalchemy.sql import ClauseElement

from agent.errors import DatabaseError, PersistenceError
from agent.persistence import full_text, maintenance, reading
from agent.persistence import statements as sql
from agent.persistence.database import Database
from agent.persistence.journal import owner_is_alive
from agent.persistence.lists import LIST, Manifest
from agent.persistence.records import Address, stored_versions
from agent.persistence.tables import (
    channels,
    checkpoints,
    items,
    message_texts,
    thread_tags,
    threads,
    tool_calls,
)
from agent.persistence.transactions import Record, Transaction
from agent.persistence.transcripts import messages_of

_LEFT_BEHIND: Final = (thread_tags, channels, items, message_texts)
"""Tables whose rows belong to a thread that the list has. Others may be ahead of it while a run begins."""
_MEND: Final = "mend it: vllm-agent threads doctor --mend"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be."""

    kind: str
    """What is wrong: ``file``, ``search``, ``orphans``, ``list`` or ``damaged``; or what somebody should know
    of: ``unanswered``, ``unfinished`` or ``unknown``."""
    thread_id: str | None
    """Whose; ``None`` if it is the database's."""
    what: str
    """What was found."""
    advice: str
    """What to do about it."""
    mended: bool = False
    """Whether it was mended just now."""

    @property
    def is_wrong(self) -> bool:
        """Whether something is broken, rather than unfinished."""
        return not self.mended and self.kind not in ("unanswered", "unfinished", "unknown")


def examine(database: Database, serde: SerializerProtocol, *, mend: bool) -> Sequence[Problem]:
    """Look at everything.

    Args:
        database: Opened.
        serde: The saver's.
        mend: Whether to remove what belongs to nothing, bring the list up to date, and index anew.

    Raises:
        DatabaseError: It cannot be read at all, or not be mended.
    """
    found = [*_file(database), *_search(database, mend=mend), *_orphans(database, mend=mend)]
    for (thread_id,) in database.read(lambda each: each.once(select(threads.c.thread_id))):
        look = partial(_thread, serde=serde, thread_id=thread_id)
        found += (
            database.write(partial(look, mend=True)) if mend else database.read(partial(look, mend=False))
        )
    return found


def _file(database: Database) -> Iterator[Problem]:
    if database.dialect != "sqlite":
        return
    for (said,) in database.read(lambda each: each.once(text("PRAGMA integrity_check"))):
        if said != "ok":
            advice = "restore a copy, or save what can be read with sqlite3's .recover"
            yield Problem("file", None, f"the file is damaged: {said}", advice)


def _search(database: Database, *, mend: bool) -> Iterator[Problem]:
    check, rebuild = full_text.CHECK[database.dialect], full_text.REBUILD[database.dialect]
    if check is None or rebuild is None or database.read_only:
        return
    try:
        database.write(lambda each: each.once(text(check)))
    except DatabaseError:
        if mend:
            database.write(lambda each: each.once(text(rebuild)))
        yield Problem("search", None, "the search index does not fit the messages", _MEND, mended=mend)


def _orphans(database: Database, *, mend: bool) -> Iterator[Problem]:
    for table in _LEFT_BEHIND:
        of_none = not_(select(threads.c.thread_id).where(threads.c.thread_id == table.c.thread_id).exists())
        look, remove = select(func.count()).select_from(table).where(of_none), delete(table).where(of_none)
        count = database.read(partial(_once, statement=look))[0][0]
        if count and mend:
            database.write(partial(_once, statement=remove))
        if count:
            what = f"{count} rows of {table.name} belong to no conversation"
            yield Problem("orphans", None, what, _MEND, mended=mend)


def _once(transaction: Transaction, statement: ClauseElement) -> Sequence[Record]:
    return transaction.once(statement)


def _thread(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, *, mend: bool
) -> Sequence[Problem]:
    if mend:
        transaction.value(sql.HOLD, {"thread_id": thread_id})
    try:
        fetched = reading.fetch(transaction, serde, Address(thread_id, "", None))
        missing = _missing(transaction, serde, thread_id)
        messages = _messages(transaction, serde, fetched) if fetched else []
    except DatabaseError as error:
        return [
            Problem("damaged", thread_id, str(error), "rewind it to a checkpoint that loads, or delete it")
        ]
    found = [Problem("damaged", thread_id, what, "rewind to before it, or delete it") for what in missing]
    described = select(threads.c.head_id, threads.c.status).where(threads.c.thread_id == thread_id)
    listed = transaction.once(described)
    if not listed:
        return []  # deleted since the list was read
    [(head_id, status)] = listed
    if (head_id or None) != (fetched.checkpoint_id if fetched else None):
        if mend and fetched:
            maintenance.settle(transaction, serde, thread_id)
        what = f"the list has checkpoint {head_id or '-'} as its newest"
        found.append(Problem("list", thread_id, what, _MEND, mended=mend and fetched is not None))
    if status == "unfinished":
        what, advice = "it stopped in the middle of an answer", f"finish it: vllm-agent resume {thread_id}"
        found.append(Problem("unfinished", thread_id, what, advice))
    elif calls := unanswered(messages):
        what = f"tool calls without a result: {', '.join(calls)}"
        found.append(Problem("unanswered", thread_id, what, "the next message to it answers them"))
    return [*found, *_unknown_outcomes(transaction, thread_id)]


def _messages(
    transaction: Transaction, serde: SerializerProtocol, fetched: reading.Fetched
) -> Sequence[BaseMessage]:
    try:
        return messages_of(transaction, serde, fetched)
    except DatabaseError:
        raise
    except PersistenceError:  # a graph may keep something else by this name; it is not damaged
        return []


def unanswered(messages: Sequence[BaseMessage]) -> list[str]:
    """The names of tools that were called and never answered."""
    answered = {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    calls = [call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]
    return [call["name"] for call in calls if call["id"] not in answered]


def _missing(transaction: Transaction, serde: SerializerProtocol, thread_id: str) -> list[str]:
    """Values that checkpoints name and that are not there."""
    of_thread = channels.c.thread_id == thread_id
    stored: dict[tuple[str, str, str], Any] = {}
    columns = (channels.c.ns, channels.c.channel, channels.c.version, channels.c.type, channels.c.value)
    for ns, name, version, kind, value in transaction.once(select(*columns).where(of_thread)):
        stored[ns, name, version] = Manifest.load(value) if kind == LIST else None
    numbers: dict[tuple[str, str], set[int]] = {}
    present = select(items.c.ns, items.c.channel, items.c.seq).where(items.c.thread_id == thread_id)
    for ns, name, number in transaction.once(present):
        numbers.setdefault((ns, name), set()).add(number)
    bodies = select(checkpoints.c.ns, checkpoints.c.checkpoint_id, checkpoints.c.type, checkpoints.c.body)
    lost = []
    for ns, checkpoint_id, kind, body in transaction.once(bodies.where(checkpoints.c.thread_id == thread_id)):
        for name, version in stored_versions(serde.loads_typed((kind, body))).items():
            manifest = stored.get((ns, name, version), ...)
            if manifest is ...:
                lost.append(f"checkpoint {checkpoint_id} has lost its value of {name!r}")
            elif manifest and not numbers.get((ns, name), set()).issuperset(manifest.numbers()):
                lost.append(f"checkpoint {checkpoint_id} has lost elements of {name!r}")
    return lost


def _unknown_outcomes(transaction: Transaction, thread_id: str) -> Iterator[Problem]:
    begun = select(tool_calls.c.tool, tool_calls.c.started_at, tool_calls.c.owner).where(
        tool_calls.c.thread_id == thread_id, tool_calls.c.status == "started"
    )
    for tool, started_at, owner in transaction.once(begun):
        if owner_is_alive(owner) is False:
            what = (
                f"{tool!r} was started at {started_at[:19]} by a process that is gone: its outcome is unknown"
            )
            yield Problem("unknown", thread_id, what, "look whether it took effect; the model is told so")
