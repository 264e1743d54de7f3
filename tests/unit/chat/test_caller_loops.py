"""What a model leaves to a thread, so that the loop of an asynchronous caller goes on meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent import VLLM, ChatVLLM, VLLMEmbeddings
from agent.engines import ScriptedEngine


@pytest.mark.parametrize("kind", [ChatVLLM, VLLM])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engine_is_opened_off_the_callers_loop(kind: Any, streamed: bool) -> None:
    model = kind(engine=ScriptedEngine(["one", "two"]))
    opener, threads = model._session._opener, []

    def open_slowly() -> Any:
        threads.append(threading.current_thread())
        return opener()

    model._session._opener = open_slowly
    for _ in range(2):
        if streamed:
            assert [chunk async for chunk in model.astream("Hi")]
        else:
            await model.ainvoke("Hi")
    model.close()
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize("kind", [ChatVLLM, VLLM, VLLMEmbeddings])
async def test_an_engine_is_freed_off_the_callers_loop(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    model = kind(engine=ScriptedEngine([]))
    monkeypatch.setattr(model._session, "close", lambda: threads.append(threading.current_thread()))
    async with model:
        pass
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()
