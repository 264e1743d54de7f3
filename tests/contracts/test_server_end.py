"""How vLLM's server ends on a signal; ours waits for requests that have not come to the engine yet."""

from __future__ import annotations

import inspect
import threading
from typing import Any

from vllm.entrypoints.launchers import launcher
from vllm.v1.engine.async_llm import AsyncLLM

from agent.engines.inprocess.http import stop_after_requests


class Engine:
    """What ``shutdown`` of vLLM's engine is called with."""

    def __init__(self) -> None:
        self.stopped: list[float | None] = []

    def shutdown(self, timeout: float | None = None) -> None:
        self.stopped.append(timeout)


def on_a_thread(work: Any, **arguments: Any) -> None:
    thread = threading.Thread(target=work, kwargs=arguments)
    thread.start()
    thread.join()


def test_vllm_calls_it_on_a_thread_with_the_seconds_that_it_gives_to_requests() -> None:
    assert list(inspect.signature(AsyncLLM.shutdown).parameters) == ["self", "timeout"]
    source = " ".join(inspect.getsource(launcher.serve_http).split())
    assert "loop.run_in_executor( None, partial(engine_client.shutdown, timeout=timeout) )" in source


def test_requests_are_waited_for_before_the_engine_is_stopped() -> None:
    engine: Any = Engine()
    seen: list[tuple[float, list[Any]]] = []
    stop_after_requests(engine, lambda seconds: seen.append((seconds, list(engine.stopped))))
    on_a_thread(engine.shutdown, timeout=20.0)
    assert seen == [(20.0, [])]
    [left] = engine.stopped
    assert 0 <= left <= 20


def test_on_the_loop_and_without_time_nothing_is_waited_for() -> None:
    engine: Any = Engine()
    seen: list[float] = []
    stop_after_requests(engine, seen.append)
    engine.shutdown(timeout=20.0)
    assert (seen, engine.stopped) == ([], [20.0])
    on_a_thread(engine.shutdown)
    assert (seen, engine.stopped) == ([0.0], [20.0, None])
