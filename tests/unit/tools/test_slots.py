import asyncio
import threading

import pytest
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from tools import ToolPolicy, acall, tool
from tools.slots import Slots


async def test_a_slot_handed_to_a_task_that_is_cancelled_at_that_moment_is_not_lost():
    slots = Slots()
    await slots.acquire(1)
    waiting = asyncio.create_task(slots.acquire(1))
    await asyncio.sleep(0)
    slots.release()  # the slot is on its way to the task
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(slots.acquire(1), 60)


async def test_first_come_first_served():
    slots, order = Slots(), []

    async def enter(number: int) -> None:
        await slots.acquire(1)
        order.append(number)
        slots.release()

    await slots.acquire(1)
    tasks = [asyncio.create_task(enter(number)) for number in range(5)]
    await asyncio.sleep(0)
    slots.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_a_loop_that_is_gone_does_not_keep_a_slot():
    slots = Slots()
    await slots.acquire(1)

    def wait_and_leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(slots.acquire(1))
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # it is left pending on purpose
        loop.close()

    thread = threading.Thread(target=wait_and_leave)
    thread.start()
    thread.join()
    slots.release()
    await asyncio.wait_for(slots.acquire(1), 60)


async def test_a_call_that_never_began_keeps_no_slot(monkeypatch):
    @tool(policy=ToolPolicy(concurrency=1, timeout=60))
    def single() -> str:
        """Do it."""
        return "done"

    @tool(policy=ToolPolicy(concurrency=1, timeout=60, isolation="process"))
    def told(config: RunnableConfig) -> str:
        """Do it."""
        return "done"

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr("tools.attempt.StoppableThread", refuse)
        assert "can't start new thread" in (await run(single)).text
    assert (await run(single)).text == "done"
    for _ in range(2):
        assert "cannot pass its config" in (await run(told)).text


async def run(called: BaseTool) -> ToolMessage:
    outcome = await acall(called, ToolCall(name=called.name, args={}, id="1", type="tool_call"))
    assert outcome.message is not None
    return outcome.message
