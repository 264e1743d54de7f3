"""Streams whose server ends them without a word on why the answer ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from agent import ChatVLLM
from agent.engines import ScriptedEngine


def add(a: int) -> int:
    """Add one."""
    return a + 1


class Abrupt(ScriptedEngine):
    """Streams these deltas, and no reason for the end."""

    def __init__(self, *deltas: dict[str, Any]) -> None:
        super().__init__([])
        self.deltas = deltas

    async def stream_chat(self, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for delta in self.deltas:
            yield {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def call(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "add", "arguments": arguments}}]}


async def answered(*deltas: dict[str, Any]) -> AIMessage:
    async with ChatVLLM(engine=Abrupt(*deltas), streaming=True) as model:
        return await model.bind_tools([add]).ainvoke("Hi")


async def test_text_that_was_held_back_is_kept() -> None:
    assert (await answered({"content": "See: "}, {"content": '{"name": "ad'})).text == 'See: {"name": "ad'


@pytest.mark.parametrize(
    "delta", [call('{"a": 1}'), {"content": '{"name": "add", "arguments": {"a": 1}}'}], ids=["parsed", "text"]
)
async def test_a_whole_call_is_one(delta: dict[str, Any]) -> None:
    assert [one["args"] for one in (await answered(delta)).tool_calls] == [{"a": 1}]


async def test_a_call_that_was_cut_off_is_never_executed() -> None:
    message = await answered(call('{"a": 1'))
    assert message.tool_calls == []
    assert [one["name"] for one in message.invalid_tool_calls] == ["add"]
