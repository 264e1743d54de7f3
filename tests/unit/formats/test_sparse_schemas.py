"""The text protocol with tools whose schemas leave out, or set to null, what most of them say."""

from __future__ import annotations

from typing import Any

import pytest

from agent import ChatVLLM
from agent.engines import ScriptedEngine
from agent.formats.text.decision import _introduction

LINE = 'TOOL_CALL: {"name": "f", "arguments": {}}'
TEXT = {"type": "string"}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


def model(*answers: str) -> ChatVLLM:
    return ChatVLLM(engine=ScriptedEngine(answers, repeat=True), protocol="text")


@pytest.mark.parametrize(
    "given",
    [
        tool(description=None),
        tool(parameters={"type": "object", "properties": {"x": {**TEXT, "description": None}}}),
        tool(parameters={"type": "object", "properties": {"x": TEXT}, "required": None}),
        tool(parameters={"type": "object", "required": ["x"]}),
        tool(parameters={"type": "object", "properties": {"x": {"anyOf": [True, TEXT]}}}),
        tool(parameters={"type": "object", "properties": {"x": {"allOf": [True, TEXT]}}}),
        tool(parameters={"allOf": [{"properties": {"x": TEXT}, "required": None}, {"properties": None}]}),
    ],
    ids=str,
)
def test_a_call_is_made(given: dict[str, Any]) -> None:
    calls = model(LINE).bind_tools([given], tool_choice="required").invoke("Call f with this.").tool_calls
    assert [call["name"] for call in calls] == ["f"]
    assert _introduction([given]).startswith("This tool is available:\n- f(")


def test_a_conversation_without_messages() -> None:
    other = {"type": "function", "function": {"name": "g"}}
    bound = model("Hello.").bind_tools([tool(), other], tool_choice="required")
    assert bound.invoke([]).invalid_tool_calls
