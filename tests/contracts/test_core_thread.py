"""The core's thread with a core that is none: what it does when steps and workers fail."""

from __future__ import annotations

import asyncio
import signal
import threading
import weakref
from collections.abc import Callable
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
        await asyncio.wait_for(front.get_output_async(), 10)
    assert "worker process ended" in str(caught.value.__cause__)
    assert front.resources.engine_dead
    assert core.ended.wait(10)
    assert "engine core failed" in caplog.text
    front.shutdown()


async def test_workers_are_spared_the_callers_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    front, core = await client(monkeypatch)
    assert signal.SIGINT in core.blocked  # processes inherit it from the thread that starts them
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    front.shutdown()
    assert core.ended.wait(10)


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
