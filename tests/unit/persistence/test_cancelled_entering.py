"""Coroutines that are cancelled while a thread takes something for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.persistence import open_checkpointer
from agent.persistence.database import Database
from agent.persistence.turns import Turn


def slowly(work: Callable[..., Any], began: threading.Event) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        result = work(*arguments, **options)
        began.set()
        time.sleep(0.2)
        return result

    return run


async def cancelled(entering: Any, began: threading.Event) -> None:
    task = asyncio.ensure_future(entering)
    await asyncio.to_thread(began.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("place", ["c.sqlite", ":memory:"])
async def test_a_claim_that_nobody_waits_for_is_given_back(place: str, tmp_path: Path) -> None:
    with open_checkpointer(place if place == ":memory:" else tmp_path / place) as saver:
        turn, began = saver.turn("t"), threading.Event()
        turn._lock.acquire = slowly(turn._lock.acquire, began)  # type: ignore[method-assign]
        await cancelled(turn.__aenter__(), began)
        async with saver.turn("t", timeout=60):
            pass


async def test_a_claim_that_came_as_its_run_was_cancelled_is_given_back(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path / "c.sqlite") as saver:
        turn = saver.turn("t")
        task = asyncio.ensure_future(turn.__aenter__())
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251  # the thread has it, and the task has not heard of it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with saver.turn("t", timeout=60):
            pass


async def test_a_claim_ends_also_where_its_run_is_cancelled_at_the_end() -> None:
    released, free = threading.Event(), threading.Event()

    class Lock:
        acquire = staticmethod(lambda: True)
        release = staticmethod(released.set)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    turn = Turn(Lock(), thread_id="t", timeout=1)
    await turn.__aenter__()
    busy = asyncio.ensure_future(asyncio.to_thread(free.wait, 30))
    await asyncio.sleep(0)
    leaving = asyncio.ensure_future(turn.__aexit__())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    free.set()
    await busy
    assert await asyncio.to_thread(released.wait, 30)


async def test_a_database_that_nobody_waits_for_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, closed = threading.Event(), threading.Event()
    close = Database.close
    monkeypatch.setattr(Database, "__init__", slowly(Database.__init__, began))
    monkeypatch.setattr(Database, "close", lambda database: (close(database), closed.set()))
    await cancelled(open_checkpointer(tmp_path / "c.sqlite").__aenter__(), began)
    assert await asyncio.to_thread(closed.wait, 60)
