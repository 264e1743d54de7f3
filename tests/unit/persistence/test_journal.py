"""The tool journal: first start, known calls, restarts, forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from langchain_core.messages import ToolMessage

from agent.errors import PersistenceError
from agent.persistence import SQLSaver, open_checkpointer

CALL = {"thread_id": "t", "call_id": "c1"}


@pytest.fixture
async def saver(where: str) -> AsyncIterator[SQLSaver]:
    async with open_checkpointer(where) as opened:
        yield opened


async def test_a_call_begins_once(saver: SQLSaver) -> None:
    assert await saver.journal.abegin(**CALL, tool="pay") is None
    again = await saver.journal.abegin(**CALL, tool="pay")
    assert again is not None
    assert (again.status, again.result, again.attempts, again.tool) == ("started", None, 1, "pay")
    assert again.finished_at is None
    assert again.owner_is_alive is True


async def test_of_many_at_once_one_is_first(saver: SQLSaver) -> None:
    begun = await asyncio.gather(*(saver.journal.abegin(**CALL, tool="pay") for _ in range(30)))
    assert begun.count(None) == 1


async def test_a_finished_call_has_its_result(saver: SQLSaver) -> None:
    result = ToolMessage("42", tool_call_id="c1", artifact={"raw": [1, 2]})
    await saver.journal.abegin(**CALL, tool="pay")
    await saver.journal.afinish(**CALL, result=result)
    known = await saver.journal.abegin(**CALL, tool="pay")
    assert known is not None
    assert (known.status, known.result) == ("finished", result)
    assert known.finished_at is not None
    assert known.finished_at >= known.started_at


async def test_a_result_may_be_nothing(saver: SQLSaver) -> None:
    await saver.journal.abegin(**CALL, tool="pay")
    await saver.journal.afinish(**CALL, result=None)
    known = await saver.journal.abegin(**CALL, tool="pay")
    assert known is not None
    assert (known.status, known.result) == ("finished", None)


async def test_restarts_are_counted(saver: SQLSaver) -> None:
    await saver.journal.abegin(**CALL, tool="pay")
    await saver.journal.arestart(**CALL)
    await saver.journal.arestart(**CALL)
    [(call_id, entry)] = (await saver.journal.aentries(thread_id="t")).items()
    assert (call_id, entry.attempts, entry.status) == ("c1", 3, "started")


async def test_calls_of_other_threads_are_others(saver: SQLSaver) -> None:
    await saver.journal.abegin(**CALL, tool="pay")
    assert await saver.journal.abegin(thread_id="u", call_id="c1", tool="pay") is None


async def test_forgetting(saver: SQLSaver) -> None:
    for call_id in ("c1", "c2"):
        await saver.journal.abegin(thread_id="t", call_id=call_id, tool="pay")
    await saver.journal.aforget(**CALL)
    assert list(await saver.journal.aentries(thread_id="t")) == ["c2"]
    await saver.adelete_thread("t")
    assert await saver.journal.aentries(thread_id="t") == {}


@pytest.mark.parametrize("change", ["afinish", "arestart"])
async def test_what_never_began_cannot_end(saver: SQLSaver, change: str) -> None:
    result = {"result": 1} if change == "afinish" else {}
    with pytest.raises(PersistenceError, match="'c1' of conversation 't' is not in the journal"):
        await getattr(saver.journal, change)(**CALL, **result)
