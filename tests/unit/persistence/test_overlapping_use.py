"""One object of open_checkpointer() that is entered by several at once, and claims that cannot be made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer

from agent.errors import DatabaseError
from agent.persistence import open_checkpointer

ON: Any = {"configurable": {"thread_id": "t"}}


async def test_tasks_that_leave_in_another_order_than_they_came(tmp_path: Path) -> None:
    conversations, left = open_checkpointer(tmp_path / "c.sqlite"), asyncio.Event()

    async def stay() -> None:
        async with conversations as saver:
            inside.set()
            await left.wait()
            assert await saver.aget_tuple(ON) is None

    inside = asyncio.Event()
    async with conversations as first:
        staying = asyncio.create_task(stay())
        await inside.wait()
        assert await first.aget_tuple(ON) is None
    left.set()
    await staying


def test_threads_that_leave_in_another_order_than_they_came(tmp_path: Path) -> None:
    conversations = open_checkpointer(tmp_path / "c.sqlite")
    inside, left, seen = threading.Event(), threading.Event(), []

    def stay() -> None:
        with conversations as saver:
            inside.set()
            left.wait(30)
            seen.append(saver.get_tuple(ON))

    staying = threading.Thread(target=stay)
    with conversations:
        staying.start()
        inside.wait(30)
    left.set()
    staying.join()
    assert seen == [None]


def test_threads_that_leave_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = open_checkpointer(tmp_path / "c.sqlite")
    first, second, third = (conversations.__enter__() for _ in range(3))

    class Others(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield from [*super().__iter__()]
            if first in [saver for _, saver in super().__iter__()]:
                self.pop(0)[1].database.close()  # between the look for the own one and taking it out

    monkeypatch.setattr(conversations, "_open", Others(conversations._open))
    conversations.__exit__(None, None, None)
    with pytest.raises(DatabaseError, match="were closed"):
        third.get_tuple(ON)
    assert second.get_tuple(ON) is None
    conversations.__exit__(None, None, None)


def test_a_claim_on_a_connection_that_is_lost(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_checkpointer(postgres_url) as saver:
        connect, made = saver.database.own_connection, []

        def lost() -> Any:
            made.append(connect())
            postgres.execute(f"SELECT pg_terminate_backend({made[0].info.backend_pid})")
            return made[0]

        monkeypatch.setattr(saver.database, "own_connection", lost)
        with pytest.raises(DatabaseError, match="no conversation can be claimed"), saver.turn("t"):
            pass
        assert made[0].closed
        monkeypatch.undo()
        with saver.turn("t"):
            pass
