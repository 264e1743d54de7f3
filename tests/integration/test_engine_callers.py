"""One engine in this process, called from everywhere at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any

import pytest

from agent import ChatVLLM
from agent.engines import LocalEngine
from agent.errors import RequestError

pytestmark = pytest.mark.engine

PATIENCE = 120.0  # seconds; on an idle machine all of this takes ten
ENDLESS = {"max_tokens": 4000, "ignore_eos": True}


def scheduler(model: ChatVLLM) -> Any:
    engine = model._session.engine()
    assert isinstance(engine, LocalEngine)
    assert engine._server is not None
    assert engine._server._llm is not None
    return engine._server._llm.engine_core.engine_core.scheduler


@contextmanager
def most_running(model: ChatVLLM) -> Iterator[Callable[[], int]]:
    """The highest number of requests that the engine's scheduler says it works on at once."""
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, scheduler(model).get_request_counts()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: most
    finally:
        done.set()
        watcher.join()


def expected(number: int) -> str:
    return f"This is the answer to caller {number}, and to nobody else: {number * 37} times {number}."


def question(number: int) -> dict[str, Any]:
    """What makes the model say one text exactly: whoever gets another one got another caller's answer."""
    return {
        "input": f"Which number are you given, {number}?",
        "structured_outputs": {"choice": [expected(number)]},
        "max_tokens": 80,
    }


def call(model: ChatVLLM, number: int) -> str:
    """A synchronous caller; every second one streams."""
    asked = question(number)
    if number % 2:
        return reduce(add, list(model.stream(**asked))).text
    return model.invoke(**asked).text


async def acall(model: ChatVLLM, number: int) -> str:
    """An asynchronous caller; every second one streams."""
    asked = question(number)
    if number % 2:
        return reduce(add, [chunk async for chunk in model.astream(**asked)]).text
    return (await model.ainvoke(**asked)).text


def on_a_thread(model: ChatVLLM, numbers: list[int]) -> list[str]:
    return [call(model, number) for number in numbers]


def on_a_loop(model: ChatVLLM, numbers: list[int]) -> list[str]:
    async def all_at_once() -> list[str]:
        return list(await asyncio.gather(*(acall(model, number) for number in numbers)))

    return asyncio.run(all_at_once())


def in_a_notebook(model: ChatVLLM, numbers: list[int]) -> list[str]:
    """A loop that runs already: its cells make both kinds of calls, and threads beside it make more."""

    async def cell() -> list[str]:
        beside = [asyncio.create_task(asyncio.to_thread(call, model, number)) for number in numbers[:4]]
        await asyncio.sleep(0)
        blocking = [call(model, number) for number in numbers[4:6]]
        awaited = [await acall(model, number) for number in numbers[6:]]
        return [*await asyncio.gather(*beside), *blocking, *awaited]

    return asyncio.run(cell())


def test_sixty_four_calls_at_once_from_threads_loops_and_a_notebook(real_model: ChatVLLM) -> None:
    numbers = list(range(64))
    shares: list[tuple[Callable[[ChatVLLM, list[int]], list[str]], list[int]]] = [
        *((on_a_thread, numbers[4 * i : 4 * i + 4]) for i in range(8)),
        *((on_a_loop, numbers[32 + 8 * i : 40 + 8 * i]) for i in range(3)),
        (in_a_notebook, numbers[56:]),
    ]
    with most_running(real_model) as most, ThreadPoolExecutor(len(shares)) as pool:
        waiting: list[Future[list[str]]] = [pool.submit(how, real_model, share) for how, share in shares]
        answers = [answer for result in waiting for answer in result.result(PATIENCE)]
    assert answers == [expected(number) for number in numbers]
    assert most() > 8
    wait_until_idle(real_model)


def test_callers_that_are_cancelled_leave_the_others_alone(real_model: ChatVLLM) -> None:
    async def mixed() -> list[str]:
        leaving = [asyncio.create_task(real_model.ainvoke("A story.", **ENDLESS)) for _ in range(6)]
        staying = [asyncio.create_task(acall(real_model, number)) for number in range(4)]
        # All that leave, and one that stays: the shorter ones may come and go one after the other.
        await asyncio.to_thread(wait_until_running, real_model, 7)
        for task in leaving:
            task.cancel()
        ended = await asyncio.gather(*leaving, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 6
        return list(await asyncio.gather(*staying))

    assert asyncio.run(asyncio.wait_for(mixed(), PATIENCE)) == [expected(number) for number in range(4)]
    wait_until_idle(real_model)


def wait_until_running(model: ChatVLLM, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while scheduler(model).get_request_counts()[0] < count:
        assert time.monotonic() < deadline, "the requests never ran at once"
        time.sleep(0.002)


def wait_until_idle(model: ChatVLLM) -> None:
    deadline = time.monotonic() + PATIENCE
    while sum(scheduler(model).get_request_counts()):
        assert time.monotonic() < deadline, "a request still has its slot"
        time.sleep(0.02)


def test_calls_that_are_made_together_start_in_one_step(
    real_model: ChatVLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole and streamed, chats and texts, several answers: the first step that computes has all of them."""
    wait_until_idle(real_model)  # a core at work waits for nobody, whoever left it something to do
    from agent.engines.inprocess import core as module

    engine = real_model._session.engine()
    assert isinstance(engine, LocalEngine)
    assert engine._server is not None
    assert engine._server._llm is not None
    core = engine._server._llm.engine_core.engine_core
    began: list[int] = []
    step = core.step_fn

    def watched() -> Any:
        done = step()
        began.append(scheduler(real_model).get_request_counts()[0])
        return done

    serving = engine._server._state.openai_serving_chat
    render = serving.render_chat_request

    async def rendered(request: Any) -> Any:  # takes its time with one of them
        await asyncio.sleep(0.2 if "Say 3." in str(request.messages) else 0)
        return await render(request)

    monkeypatch.setattr(serving, "render_chat_request", rendered)
    monkeypatch.setattr(core, "step_fn", watched)
    monkeypatch.setattr(module, "GATHERING", PATIENCE)  # not used up where all of them come
    short = {"max_tokens": 3, "ignore_eos": True}

    def chat(number: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": f"Say {number}."}], **short}

    async def streamed(chunks: Any) -> int:
        return len([chunk async for chunk in chunks])

    async def all_at_once() -> list[Any]:
        calls: list[Any] = [engine.chat(chat(number)) for number in range(4)]
        calls += [streamed(engine.stream_chat(chat(number))) for number in range(4, 6)]
        calls += [engine.complete({"prompt": "Once", "n": 2, **short})]
        calls += [streamed(engine.stream_complete({"prompt": "There was", **short}))]
        refused = engine.chat({"messages": [{"role": "user", "content": "Too much."}], "max_tokens": 10**6})
        return await asyncio.gather(refused, *calls, return_exceptions=True)

    refused, *answers = engine.loop.run(all_at_once())
    assert isinstance(refused, RequestError)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert next(count for count in began if count) == 4 + 2 + 2 + 1
    wait_until_idle(real_model)
