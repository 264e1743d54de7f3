"""The tool journal: which tool calls have begun, which have ended, and with what result.

A checkpoint is written after a step; a tool acts on the world within one. Between the two lies the moment in
which a killed process has paid and does not know it. The journal is written before and after every call, by
thread and call id, so that a resumed run takes the result of a finished call and knows of an unfinished one.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import Update, and_, bindparam, case, delete, literal, null, select, update

from agent.errors import PersistenceError
from agent.persistence.database import Database
from agent.persistence.dialects import insert
from agent.persistence.records import now
from agent.persistence.tables import tool_calls
from agent.persistence.transactions import Record, Transaction

_CALLS = (
    select(
        tool_calls.c.call_id,
        tool_calls.c.tool,
        tool_calls.c.status,
        tool_calls.c.attempts,
        tool_calls.c.started_at,
        tool_calls.c.finished_at,
        tool_calls.c.owner,
        tool_calls.c.type,
        tool_calls.c.result,
    )
    .where(tool_calls.c.thread_id == bindparam("thread_id"))
    .order_by(tool_calls.c.started_at)
)
_CALL = _CALLS.where(tool_calls.c.call_id == bindparam("call_id"))
_CHANGE = update(tool_calls).where(
    tool_calls.c.thread_id == bindparam("of"), tool_calls.c.call_id == bindparam("call")
)
_FINISH = _CHANGE.values(
    status=literal("finished"),
    finished_at=bindparam("finished_at"),
    type=bindparam("kind"),
    result=bindparam("data"),
)
_RESTART = _CHANGE.values(
    status=literal("started"),
    attempts=case(
        (
            and_(
                tool_calls.c.started_at == bindparam("started_at"), tool_calls.c.owner == bindparam("owner")
            ),
            tool_calls.c.attempts,  # this very restart, stored again
        ),
        else_=tool_calls.c.attempts + 1,
    ),
    started_at=bindparam("started_at"),
    owner=bindparam("owner"),
    finished_at=null(),
    type=null(),
    result=null(),
)


@dataclass(frozen=True)
class JournalEntry:
    """What the journal knows of one tool call."""

    status: Literal["started", "finished"]
    """``started``: its outcome is unknown, unless it is still running."""
    result: object
    """What the finished call returned; ``None`` before."""
    attempts: int
    """How many times it was started."""
    tool: str
    """The tool's name."""
    started_at: str
    """When it was started last; ISO 8601, UTC."""
    finished_at: str | None
    """When it ended."""
    owner: str
    """``host:pid`` of the process that started it last."""

    @property
    def owner_is_alive(self) -> bool | None:
        """Whether that process runs on; ``None`` when it is on another host and cannot be asked."""
        return owner_is_alive(self.owner)


class ToolJournal:
    """The journal of one database; reached as ``saver.journal``. Whatever it says is committed.

    Args:
        database: The opened database.
        serde: How results become bytes.
    """

    def __init__(self, database: Database, *, serde: SerializerProtocol) -> None:
        self._database = database
        self._serde = serde
        self._insert = insert(database.dialect, tool_calls).on_conflict_do_nothing()

    async def abegin(self, *, thread_id: str, call_id: str, tool: str) -> JournalEntry | None:
        """Register that a call starts.

        Returns:
            ``None`` if this is the first time; else what is known of it, and nothing was changed.
        """
        found = await self._database.awrite(lambda: self._beginning(str(thread_id), call_id, tool))
        return None if found is None else self._entry(found)

    async def afinish(self, *, thread_id: str, call_id: str, result: object) -> None:
        """Register that a call ended, with its result.

        Raises:
            PersistenceError: It was never begun.
        """
        kind, data = self._serde.dumps_typed(result)
        ended = {"finished_at": now(), "kind": kind, "data": data}
        await self._change(_FINISH, str(thread_id), call_id, ended)

    async def arestart(self, *, thread_id: str, call_id: str) -> None:
        """Register that a call whose outcome is unknown starts once more.

        Raises:
            PersistenceError: It was never begun.
        """
        begun = {"started_at": now(), "owner": _owner()}
        await self._change(_RESTART, str(thread_id), call_id, begun)

    async def aforget(self, *, thread_id: str, call_id: str | None = None) -> None:
        """Forget one call, or all of a thread. Deleting a thread does so by itself."""
        statement = delete(tool_calls).where(tool_calls.c.thread_id == str(thread_id))
        if call_id is not None:
            statement = statement.where(tool_calls.c.call_id == call_id)
        await self._database.awrite(lambda: lambda transaction: transaction.once(statement))

    async def aentries(self, *, thread_id: str) -> dict[str, JournalEntry]:
        """All calls of a thread by call id, in the order of their last start."""
        return await self._database.run(self._entries, str(thread_id))

    def _beginning(self, thread_id: str, call_id: str, tool: str) -> Callable[[Transaction], Record | None]:
        key = {"thread_id": thread_id, "call_id": call_id}
        owner = _owner()
        started = {"tool": tool, "status": "started", "attempts": 1, "started_at": now(), "owner": owner}

        def work(transaction: Transaction) -> Record | None:
            if transaction.changed(self._insert, {**key, **started}) == 1:
                return None
            row = transaction.first(_CALL, key)
            # Stored by this very call, whose commit was answered by nobody?
            return None if row is not None and (row[4], row[6]) == (started["started_at"], owner) else row

        return work

    def _entries(self, thread_id: str) -> dict[str, JournalEntry]:
        rows = self._database.read(lambda transaction: transaction.all(_CALLS, {"thread_id": thread_id}))
        return {row[0]: self._entry(row) for row in rows}

    async def _change(
        self, statement: Update, thread_id: str, call_id: str, values: Mapping[str, Any]
    ) -> None:
        parameters = {"of": thread_id, "call": call_id, **values}
        changed = await self._database.awrite(lambda: lambda each: each.changed(statement, parameters))
        if changed == 0:
            raise PersistenceError(
                f"tool call {call_id!r} of conversation {thread_id!r} is not in the journal: begin it first"
            )

    def _entry(self, row: Record) -> JournalEntry:
        _, tool, status, attempts, started_at, finished_at, owner, kind, result = row
        return JournalEntry(
            status=status,
            result=None if kind is None else self._serde.loads_typed((kind, result)),
            attempts=attempts,
            tool=tool,
            started_at=started_at,
            finished_at=finished_at,
            owner=owner,
        )


def owner_is_alive(owner: str) -> bool | None:
    """Whether the process ``host:pid`` runs on; ``None`` when it is on another host and cannot be asked."""
    host, _, pid = owner.rpartition(":")
    if host != socket.gethostname():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@functools.cache
def _host() -> str:
    return socket.gethostname()


def _owner() -> str:
    return f"{_host()}:{os.getpid()}"
