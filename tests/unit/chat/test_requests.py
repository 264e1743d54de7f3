"""From LangChain to the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from agent.chat.requests import wire_messages, wire_tool_choice, wire_tools
from agent.errors import ConfigurationError, UnsupportedInputError


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Add(BaseModel):
    """Add two numbers."""

    a: int = Field(description="the first")


def look_up(word: str, times: int = 1) -> str:
    """Look a word up.

    Args:
        word: What to look for.
        times: How often.
    """
    return word * times


def test_a_conversation() -> None:
    call = {"type": "tool_call", "name": "add", "args": {"a": 1, "b": 2}, "id": "c1"}
    wired = wire_messages(
        [
            SystemMessage("Be brief."),
            HumanMessage("1 + 2?"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("3", tool_call_id="c1", name="add"),
        ]
    )
    assert [message["role"] for message in wired] == ["system", "user", "assistant", "tool"]
    [wire_call] = wired[2]["tool_calls"]
    assert wire_call["id"] == wired[3]["tool_call_id"] == "c1"
    assert json.loads(wire_call["function"]["arguments"]) == {"a": 1, "b": 2}


def test_a_broken_call_stays_visible_and_is_json() -> None:
    broken = {"type": "invalid_tool_call", "name": "add", "args": '{"a": ', "id": "c1", "error": "cut"}
    [wire] = wire_messages([AIMessage("Let me see.", invalid_tool_calls=[broken])])
    [call] = wire["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"invalid_json": '{"a": '}
    assert (call["id"], call["function"]["name"], wire["content"]) == ("c1", "add", "Let me see.")


def test_a_broken_call_without_a_name_stays_beside_a_good_one() -> None:
    good = {"type": "tool_call", "name": "add", "args": {}, "id": "c1"}
    broken = {"type": "invalid_tool_call", "name": None, "args": "?", "id": "c2", "error": "cut"}
    [wire] = wire_messages([AIMessage("", tool_calls=[good], invalid_tool_calls=[broken])])
    assert [call["function"]["name"] for call in wire["tool_calls"]] == ["add", "unknown"]


@pytest.mark.parametrize(
    "given", [add, look_up, Add, Add.model_json_schema()], ids=lambda g: type(g).__name__
)
def test_tools_of_every_kind(given: Any) -> None:
    [wire] = wire_tools([given])
    assert wire["type"] == "function"
    assert wire["function"]["name"]
    assert wire["function"]["parameters"]["properties"]


def test_a_tool_that_is_given_twice_is_sent_once() -> None:
    assert len(wire_tools([Add, Add.model_json_schema(), Add])) == 1


def test_two_tools_of_one_name_are_refused() -> None:
    other = {"title": "Add", "description": "Something else.", "type": "object", "properties": {}}
    with pytest.raises(ConfigurationError, match="two tools are called 'Add'"):
        wire_tools([Add, other])


def test_a_parameter_called_title_is_kept_apart() -> None:
    def with_title(kind: str) -> dict[str, Any]:
        properties = {"title": {"type": kind}}
        return {"title": "Book", "description": "A book.", "type": "object", "properties": properties}

    with pytest.raises(ConfigurationError, match="two tools are called 'Book'"):
        wire_tools([with_title("string"), with_title("integer")])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "must be a list of tools, got 5"),
        (add, "must be a list of tools"),
        ({"title": "T"}, "must be a list of tools"),
        ([5], "5 is no tool: give a function"),
        ([int], "is no tool: give a function"),
        ([{"type": "function"}], "is no tool: give a function"),
        ([{"type": "function", "function": {"name": ""}}], "its name is ''"),
        ([{"type": "function", "function": {"name": 5}}], "its name is 5"),
        ([{"type": "function", "function": {"name": "f", "parameters": "abc"}}], "its parameters are 'abc'"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": {"properties": 5}}}],
            "the properties of its parameters are 5",
        ),
    ],
)
def test_what_is_no_tool_is_named(given: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        wire_tools(given)


def calls_back(then: Callable[[int], int]) -> None:
    """Take what no JSON can hold."""


def forward(to: Later) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Take a type that there is not."""


class Holder(BaseModel):
    """Hold what no JSON can."""

    then: Callable[[int], int]


@pytest.mark.parametrize("given", [calls_back, forward, Holder], ids=lambda g: g.__name__)
def test_a_tool_whose_arguments_are_no_json_is_none(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no tool: give a function"):
        wire_tools([given])


HALF = "\ud83d"  # of an emoji


def test_half_characters_are_replaced_wherever_they_stand() -> None:
    call: Any = {"name": f"f{HALF}", "args": {"a": [HALF, "é"]}, "id": "1", "type": "tool_call"}
    wire = wire_messages(
        [
            SystemMessage(f"be {HALF} brief"),
            HumanMessage([{"type": "text", "text": HALF}, {"type": "text", "text": "é"}]),
            AIMessage("", tool_calls=[call]),
            ToolMessage(f"cut {HALF}", tool_call_id="1"),
            HumanMessage(f"{HALF}\ude00"),  # two halves that stand together are one character
        ]
    )
    json.dumps(wire, ensure_ascii=False).encode()
    assert wire[0]["content"] == "be \ufffd brief"
    assert wire[2]["tool_calls"][0]["function"] == {"name": "f\ufffd", "arguments": '{"a": ["\ufffd", "é"]}'}
    assert (wire[3]["content"], wire[4]["content"]) == ("cut \ufffd", "😀")


def test_arguments_of_a_call_that_are_no_json_are_named() -> None:
    call: Any = {"name": "f", "args": {"a": object()}, "id": "1", "type": "tool_call"}
    with pytest.raises(UnsupportedInputError, match="a call of 'f' are no JSON"):
        wire_messages([AIMessage("", tool_calls=[call])])


NAMED = {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        (False, "none"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("add", NAMED),
        (NAMED, NAMED),
        ({"name": "add"}, NAMED),
    ],
)
def test_tool_choice(choice: Any, wire: Any) -> None:
    assert wire_tool_choice(choice, wire_tools([add])) == wire


@pytest.mark.parametrize(
    "choice", ["subtract", {"function": {"name": "subtract"}}, {"type": "function"}, {"function": None}, 5]
)
def test_a_choice_that_names_no_tool_is_refused(choice: Any) -> None:
    with pytest.raises(ConfigurationError, match="bound are: add"):
        wire_tool_choice(choice, wire_tools([add]))


def test_reasoning_goes_back_beside_the_content() -> None:
    kept = AIMessage("42", additional_kwargs={"reasoning_content": "Hm."})
    standard = AIMessage(
        content_blocks=[{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "42"}]
    )
    for message in (kept, standard):
        assert wire_messages([message]) == [{"role": "assistant", "content": "42", "reasoning": "Hm."}]


def test_standard_blocks_of_calls_are_calls_once() -> None:
    call = {"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "c1"}
    message = AIMessage(content_blocks=[{"type": "text", "text": "So:"}, call])
    [wire] = wire_messages([message])
    assert wire["content"] == "So:"
    assert [one["id"] for one in wire["tool_calls"]] == ["c1"]


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(UnsupportedInputError, match="nonsense"):
        wire_messages([HumanMessage([{"type": "nonsense"}])])


def test_the_mark_of_strictness_is_passed_on() -> None:
    assert wire_tools([add], strict=True)[0]["function"]["strict"] is True
    assert "strict" not in wire_tools([add])[0]["function"]


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("What is it? «ü»"),
        HumanMessage(""),
        SystemMessage("Be kind."),
        AIMessage("It is so."),
        AIMessage("", tool_calls=[{"name": "f", "args": {"a": "ä", "b": [1, None]}, "id": "c1"}]),
        AIMessage("Both.", tool_calls=[{"name": "f", "args": {}, "id": str(n)} for n in range(2)]),
        ToolMessage("ten", tool_call_id="c1", name="f"),
        ToolMessage("ten", tool_call_id="c1"),
        HumanMessage("Hi", name="Ann"),
        SystemMessage("Be kind.", additional_kwargs={"__openai_role__": "developer"}),
        AIMessage("No.", additional_kwargs={"refusal": "No."}),
    ],
    ids=repr,
)
def test_what_is_converted_here_is_as_langchain_converts_it(message: BaseMessage) -> None:
    assert wire_messages([message]) == convert_to_openai_messages([message])
