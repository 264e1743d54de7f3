"""Crossing over to an engine's loop from threads and from other loops."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agent.engines.loop import EngineLoop
from agent.errors import EngineClosedError


@pytest.fixture
def loop() -> Iterator[EngineLoop]:
    loop = EngineLoop("test")
    yield loop
    loop.stop()


class Source:
    """Counts for ever, with a slow clean-up that a test can look at."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.closed = threading.Event()

    async def count(self) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            self.waiting.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            self.closed.set()


async def name() -> str:
    return threading.current_thread().name


async def fail() -> None:
    raise KeyError("inside")


async def forever() -> None:
    await asyncio.sleep(60)


def test_everything_runs_on_the_loops_own_thread(loop: EngineLoop) -> None:
    assert loop.run(name()) == "test"
    assert asyncio.run(loop.arun(name())) == "test"
    assert not loop.is_current


def test_errors_come_back(loop: EngineLoop) -> None:
    with pytest.raises(KeyError, match="inside"):
        loop.run(fail())
    with pytest.raises(KeyError, match="inside"):
        asyncio.run(loop.arun(fail()))


def test_a_synchronous_call_from_the_loop_itself_is_refused(loop: EngineLoop) -> None:
    async def nested() -> str:
        return loop.run(name())

    with pytest.raises(RuntimeError, match="wait for itself"):
        loop.run(nested())


def test_an_asynchronous_call_from_the_loop_itself_runs_here(loop: EngineLoop) -> None:
    async def nested() -> str:
        return await loop.arun(name())

    assert loop.run(nested()) == "test"


def test_leaving_an_iterator_closes_it(loop: EngineLoop) -> None:
    source = Source()
    for item in loop.iterate(source.count()):
        if item == 2:
            break
    assert source.closed.is_set()


async def test_leaving_an_asynchronous_iterator_closes_it(loop: EngineLoop) -> None:
    source = Source()
    items = loop.aiterate(source.count())
    assert [await anext(items), await anext(items)] == [1, 2]
    await items.aclose()  # type: ignore[attr-defined]
    assert source.closed.is_set()


async def test_cancelling_in_the_middle_of_a_step_closes_the_iterator(loop: EngineLoop) -> None:
    source = Source()

    async def consume() -> None:
        async for _ in loop.aiterate(source.count()):
            pass

    task = asyncio.create_task(consume())
    await asyncio.to_thread(source.waiting.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed.is_set()


class Fast:
    """Gives a few items without waiting for anybody, then fails."""

    def __init__(self) -> None:
        self.done = threading.Event()

    async def items(self) -> AsyncIterator[int]:
        for number in range(5):
            yield number
        self.done.set()
        raise KeyError("at the end")


def test_an_iterator_runs_ahead_of_its_consumer(loop: EngineLoop) -> None:
    source, items = Fast(), []

    def consume() -> None:
        for item in loop.iterate(source.items()):
            assert source.done.wait(60), "every item costs a crossing between threads"
            items.append(item)

    with pytest.raises(KeyError, match="at the end"):
        consume()
    assert items == [0, 1, 2, 3, 4]


async def test_an_asynchronous_iterator_runs_ahead_of_its_consumer(loop: EngineLoop) -> None:
    source, items = Fast(), []

    async def consume() -> None:
        async for item in loop.aiterate(source.items()):
            assert source.done.wait(60), "every item costs a crossing between threads"
            items.append(item)

    with pytest.raises(KeyError, match="at the end"):
        await consume()
    assert items == [0, 1, 2, 3, 4]


def test_stop_ends_those_who_iterate(loop: EngineLoop) -> None:
    source = Source()
    threading.Thread(target=lambda: (source.waiting.wait(60), loop.stop())).start()
    with pytest.raises(EngineClosedError):
        list(loop.iterate(source.count()))
    assert source.closed.is_set()
    with pytest.raises(EngineClosedError):
        list(loop.iterate(source.count()))


async def test_stop_ends_those_who_iterate_elsewhere(loop: EngineLoop) -> None:
    source = Source()
    threading.Thread(target=lambda: (source.waiting.wait(60), loop.stop())).start()
    with pytest.raises(EngineClosedError):
        async for _ in loop.aiterate(source.count()):
            pass
    assert source.closed.is_set()


def test_iterating_synchronously_on_the_loop_itself_is_refused(loop: EngineLoop) -> None:
    async def nested() -> list[int]:
        return list(loop.iterate(Fast().items()))

    with pytest.raises(RuntimeError, match="wait for itself"):
        loop.run(nested())


def test_a_timeout_in_the_caller_is_a_timeout(loop: EngineLoop) -> None:
    async def call() -> None:
        async with asyncio.timeout(0.05):
            await loop.arun(forever())

    with pytest.raises(TimeoutError):
        asyncio.run(call())


def test_stop_ends_those_who_wait(loop: EngineLoop) -> None:
    errors: list[BaseException] = []
    started = threading.Barrier(3)

    async def announced() -> None:
        await asyncio.to_thread(started.wait)
        await asyncio.sleep(60)

    def catch(call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except Exception as error:
            errors.append(error)

    calls = [lambda: loop.run(announced()), lambda: asyncio.run(loop.arun(announced()))]
    threads = [threading.Thread(target=catch, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    started.wait(60)
    loop.stop()
    loop.stop()
    for thread in threads:
        thread.join(60)
    assert [type(error) for error in errors] == [EngineClosedError] * 2
    with pytest.raises(EngineClosedError):
        loop.run(name())


def test_a_loop_that_never_ran_can_be_stopped() -> None:
    loop = EngineLoop("unused")
    loop.stop()
    with pytest.raises(EngineClosedError):
        loop.run(name())


def test_stop_from_the_loop_itself() -> None:
    loop = EngineLoop("own")

    async def stop() -> None:
        loop.stop()
        await asyncio.sleep(60)

    with pytest.raises(EngineClosedError):
        loop.run(stop())


def test_a_watcher_of_blocking_calls_leaves_the_engines_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher: Any = types.ModuleType("blockbuster.blockbuster")
    watcher._skip = threading.local()
    monkeypatch.setitem(sys.modules, "blockbuster.blockbuster", watcher)
    loop = EngineLoop("watched")

    async def skipped() -> bool:
        return bool(getattr(watcher._skip, "value", False))

    assert loop.run(skipped()) is True
    assert not hasattr(watcher._skip, "value"), "the caller's thread is still watched"
    loop.stop()
