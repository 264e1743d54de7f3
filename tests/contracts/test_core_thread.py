"""The core's thread with a core that is none: what it does when steps and workers fail."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from agent.engines import EngineConfig, LocalEngine, open_engine, release_engine


class FakeCore:
    """What the thread touches of vLLM's core."""

    made: list[FakeCore] = []  # noqa: RUF012  # the thread makes it, and a test looks at it

    def __init__(self, vllm_config: Any, executor_class: Any, log_stats: bool) -> None:
        self.scheduler = SimpleNamespace(has_requests=lambda: False)
        self.batch_queue: list[Any] = []
        self.failed: list[Callable[[], None]] = []
        self.model_executor = SimpleNamespace(register_failure_callback=self.failed.append)
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.ended = threading.Event()
        self.made.append(self)

    def shutdown(self) -> None:
        self.ended.set()


async def client(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, FakeCore]:
    from agent.engines.inprocess import core

    monkeypatch.setattr(core, "_StagedCore", FakeCore)
    made = core.ThreadCoreClient(None, None, log_stats=False, on_stage=lambda stage: None)
    return made, FakeCore.made.pop()


async def test_a_worker_that_ends_while_nobody_waits_ends_the_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

    front, core = await client(monkeypatch)
    assert not front.resources.engine_dead
    [tell] = core.failed
    tell()
    with pytest.raises(VLLMEngineDeadError) as caught:
        await asyncio.wait_for(front.get_output_async(), 60)
    assert "worker process ended" in str(caught.value.__cause__)
    assert front.resources.engine_dead
    assert core.ended.wait(60)
    assert "engine core failed" in caplog.text
    front.shutdown()


async def test_a_job_that_a_dead_core_never_does_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

    front, core = await client(monkeypatch)
    [tell] = core.failed
    working = threading.Event()
    front._work.put(working.wait)
    tell()
    job = asyncio.ensure_future(front.call(len, "ab"))
    await asyncio.sleep(0)
    working.set()
    for late in (job, front.call(len, "ab")):
        with pytest.raises(VLLMEngineDeadError):
            await asyncio.wait_for(late, 60)
    front.shutdown()


async def test_workers_are_spared_the_callers_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    front, core = await client(monkeypatch)
    assert signal.SIGINT in core.blocked  # processes inherit it from the thread that starts them
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    front.shutdown()
    assert core.ended.wait(60)


def test_an_engine_that_died_unseen_is_replaced_by_a_fresh_one() -> None:
    class Server:
        dead = False

        def shutdown(self) -> None:
            self.dead = True

        def return_device_memory(self) -> None:
            pass

    config = EngineConfig.create("nobody/no-model")
    first = open_engine(config)
    server = Server()
    first._server = server  # type: ignore[assignment]
    assert not first.closed
    server.dead = True
    assert first.closed
    second = open_engine(config)
    assert second is not first
    assert isinstance(second, LocalEngine)
    assert not second.closed
    release_engine(second)


def test_memory_of_a_card_is_returned_when_nothing_holds_it_any_more() -> None:
    class Weights:
        itself: Weights

    class Server:
        def __init__(self) -> None:
            self.weights: Weights | None = Weights()
            self.weights.itself = self.weights
            self.there = weakref.ref(self.weights)
            self.held: bool | None = None

        dead = False

        def shutdown(self) -> None:
            self.weights = None

        def return_device_memory(self) -> None:
            self.held = self.there() is not None

    engine = LocalEngine(EngineConfig.create("nobody/no-model"))
    server = Server()
    engine._server = server  # type: ignore[assignment]
    engine.close()
    assert server.held is False


GATHERING = 20.0
"""Seconds that an idle core waits here: far more than anything takes that does not wait for them."""


class Counting(FakeCore):
    """A core that answers every request in one step, and remembers how many each step had."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.requests: list[Any] = []
        self.steps: list[int] = []
        self.running = False  # whether it has more to do than the new requests
        self.scheduler = SimpleNamespace(has_requests=lambda: bool(self.requests) or self.running)

    def preprocess_add_request(self, request: Any) -> tuple[Any, int]:
        return request, 0

    def add_request(self, request: Any, wave: int) -> None:
        self.requests.append(request)

    def step_fn(self) -> tuple[dict[int, Any], bool]:
        time.sleep(0.001)
        self.steps.append(len(self.requests))
        self.requests.clear()
        return {}, True

    def post_step(self, *, model_executed: bool) -> None:
        pass


@pytest.fixture
async def counted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Counting]]:
    from agent.engines.inprocess import core as module

    monkeypatch.setattr(module, "_StagedCore", Counting)
    monkeypatch.setattr(module, "GATHERING", GATHERING)
    front = module.ThreadCoreClient(None, None, log_stats=False, on_stage=lambda stage: None)
    core = FakeCore.made.pop()
    assert isinstance(core, Counting)
    yield front, core
    front.shutdown()


async def steps_of(core: Counting, count: int) -> list[int]:
    """The steps of the core until so many requests were in them."""
    deadline = time.monotonic() + 60
    while sum(core.steps) < count:
        assert time.monotonic() < deadline, core.steps
        await asyncio.sleep(0.002)
    return core.steps


async def arriving(front: Any, *, after: float = 0.0, fails: bool = False) -> None:
    with front.arrivals.announced():
        await asyncio.sleep(after)
        if fails:
            raise ValueError("a bad request")
        # As vLLM does it where there are several prompts: each in a task of its own.
        await asyncio.create_task(front.add_request_async(SimpleNamespace(request_id="a")))
        await asyncio.sleep(60)  # the answer


async def side_by_side(*calls: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def test_requests_that_are_on_their_way_together_start_together(
    counted: tuple[Any, Counting],
) -> None:
    front, core = counted
    tasks = await side_by_side(*(arriving(front, after=0.03 * number) for number in range(4)))
    assert await steps_of(core, 4) == [4]
    for task in tasks:
        task.cancel()


async def test_a_request_that_fails_or_is_cancelled_on_its_way_is_not_waited_for(
    counted: tuple[Any, Counting],
) -> None:
    front, core = counted
    began = time.monotonic()
    tasks = await side_by_side(
        arriving(front), arriving(front, after=0.05, fails=True), arriving(front, after=60)
    )
    await asyncio.sleep(0.1)
    assert core.steps == []
    tasks[-1].cancel()
    assert await steps_of(core, 1) == [1]
    assert time.monotonic() - began < GATHERING
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nobody_waits_longer_than_a_moment(
    monkeypatch: pytest.MonkeyPatch, counted: tuple[Any, Counting]
) -> None:
    from agent.engines.inprocess import core as module

    front, core = counted
    monkeypatch.setattr(module, "GATHERING", 0.05)
    began = time.monotonic()
    tasks = await side_by_side(arriving(front), arriving(front, after=60))
    assert await steps_of(core, 1) == [1]
    assert 0.05 <= time.monotonic() - began < GATHERING
    for task in tasks:
        task.cancel()


async def test_what_runs_is_not_held_up_for_what_is_on_its_way(counted: tuple[Any, Counting]) -> None:
    front, core = counted
    core.running = True
    first, second, late = await side_by_side(
        arriving(front), arriving(front, after=0.1), arriving(front, after=60)
    )
    await asyncio.sleep(0.05)
    late.cancel()  # the first one is started, and the second comes while it runs
    assert sum(await steps_of(core, 1)) in (1, 2)
    [later, never] = await side_by_side(arriving(front), arriving(front, after=60))
    began = time.monotonic()
    await steps_of(core, 3)
    assert time.monotonic() - began < GATHERING
    core.running = False
    for task in (first, second, later, never):
        task.cancel()


async def test_a_core_at_work_gives_freed_memory_back_between_its_steps(
    monkeypatch: pytest.MonkeyPatch, counted: tuple[Any, Counting]
) -> None:
    from agent.engines import memory

    front, core = counted
    trimmed: list[int] = []
    monkeypatch.setattr(memory, "_trim", lambda: trimmed.append(sum(core.steps)))
    now = time.monotonic()
    await front.add_request_async(SimpleNamespace(request_id="a"))
    await steps_of(core, 1)
    assert trimmed == []  # ten seconds have not passed
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: now + 60))
    await front.add_request_async(SimpleNamespace(request_id="b"))
    await steps_of(core, 2)
    await front.add_request_async(SimpleNamespace(request_id="c"))
    await steps_of(core, 3)
    assert trimmed == [2]
