"""Recovery of calls that a parser missed: what is one, what is none, and that pieces make no difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chat.candidates import OPENERS
from agent.chat.missed import complaint
from agent.chat.recovery import Recovery, recover, recover_from_reasoning


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool("add", a={"type": "integer"}, b={"type": "integer"}),
    tool("say", text={"type": "string"}),
    tool("now"),
]
ADD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
SAY = '{"name": "say", "arguments": {"text": "a } ] \\" ``` b"}}'
FOUND_ADD = ("add", {"a": 1, "b": 2})


def found(text: str) -> tuple[str, list[tuple[str, Any]]]:
    """Return the text that is left, and the valid calls."""
    rest, calls = recover(text, TOOLS)
    assert not [call for call in calls if call.error], calls
    return rest, [(str(call.name), json.loads(call.arguments)) for call in calls]


def test_references_of_a_schema_are_not_fetched(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"type": "integer"}')
    away = {"properties": {"a": {"$ref": other.as_uri()}}}
    here = {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    assert not complaint({"a": "x"}, away)
    assert complaint({"a": "x"}, here) == "a: 'x' is not of type 'integer'"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (ADD, ""),
        (f"  {ADD}\n", ""),
        (f"Let me see.\n{ADD}", "Let me see."),
        (f"I will call it: {ADD}", "I will call it:"),
        (f"{ADD}\nThat is all.", "That is all."),
        (f"Before.\n\n{ADD}\n\nAfter.", "Before.\n\n\n\nAfter."),
        (f"{ADD}.", "."),
        (f"[{ADD}]", ""),
        ('{"name": "add", "parameters": {"a": 1, "b": 2}}', ""),
        ('{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}', ""),
        ('{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}', ""),
        ('{"type": "function", "name": "add", "parameters": {"a": 1, "b": 2}}', ""),
        ('{"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}', ""),
        ('{\n  "name": "add",\n  "arguments": {\n    "a": 1,\n    "b": 2\n  }\n}', ""),
        (f"```json\n{ADD}\n```", ""),
        (f"```\n{ADD}\n```\n", ""),
        (f"Here it is:\n```json\n{ADD}\n```\nDone.", "Here it is:\n\nDone."),
        (f"```tool_call\n{ADD}\n```", ""),
        (f"```json\n{ADD}", ""),
        (f"<tool_call>{ADD}</tool_call>", ""),
        (f"<tool_call>\n{ADD}\n", ""),
        (f"<function_call>{ADD}</function_call>", ""),
        (f"<|tool_call|>[{ADD}]<|/tool_call|>", ""),
        (f"<|python_tag|>{ADD}", ""),
        (f"[TOOL_CALLS] [{ADD}]", ""),
        (f"functools[{ADD}]", ""),
        (f"TOOL_CALL: {ADD}", ""),
        (f"<tools>{ADD}</tools>", ""),
    ],
)
def test_a_call_is_recovered(text: str, rest: str) -> None:
    assert found(text) == (rest, [FOUND_ADD])


@pytest.mark.parametrize(
    "text",
    [
        f"{ADD}\n{SAY}",
        f"[{ADD}, {SAY}]",
        f"```json\n{ADD}\n{SAY}\n```",
        f"<tool_call>{ADD}</tool_call>\n{SAY}",
    ],
)
def test_several_calls_are_recovered_in_their_order(text: str) -> None:
    assert found(text)[1] == [FOUND_ADD, ("say", {"text": 'a } ] " ``` b'})]


def test_a_call_without_arguments() -> None:
    assert found('<tool_call>{"name": "now"}</tool_call>') == ("", [("now", {})])
    assert found('{"name": "now", "arguments": {}}') == ("", [("now", {})])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello!",
        "  with space around it \n\n",
        '{"name": "now"}',  # a thing that has a tool's name
        '{"name": "Ada", "arguments": "many"}',
        '{"name": "multiply", "arguments": {"a": 1}}',  # not bound
        '<tool_call>{"name": "multiply", "arguments": {"a": 1}}</tool_call>',
        f"Write {ADD} to call the tool.",  # quoted in a sentence
        f"Write `{ADD}`",
        f"```python\n{ADD}\n```",
        f"```json\n{ADD}\nand more\n```",
        '{"call": ' + ADD + "}",  # inside of other JSON
        f'{{"examples": [{ADD}]}}',
        f'[{{"x": 1}}, {ADD}]',
        '{"name": "add", "arguments": {"a": 1, "b": 2}, "comment": "no"}',
        '[{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "Ada"}]',
        "if (x) { return [1, 2]; }",
        "a set {1, 2} and a list [1, 2]",
        "import functools\nfunctools.reduce(add)",
        "<tool_call> is a tag",
        "TOOL_CALL: is a mark",
        "``` not a block",
        '{"name": "broken',
        '{"title": "add", "arguments": {',
        "[TOOL_CALLS]",
        "`",
    ],
)
def test_text_stays_text(text: str) -> None:
    assert found(text) == (text, [])


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ('{"name": "add", "arguments": {"a": 1, "b"', "add", "no valid JSON"),
        ('{"name": "add", "arguments": {a: 1, b: 2}}', "add", "no valid JSON"),
        ('```json\n{"name": "add", "arguments": {"a": 1', "add", "no valid JSON"),
        ('<tool_call>{"name": "add", "argum', "add", "no valid JSON"),
        ('<tool_call>{"na', None, "no valid JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1,}}</tool_call>', "add", "no valid JSON"),
        ('{"name": "add", "arguments": {"a": 1}}', "add", "'b' is a required property"),
        ('{"name": "add", "arguments": {"a": 1, "b": "two"}}', "add", "b: 'two' is not of type 'integer'"),
        ('{"name": "add", "arguments": [1, 2]}', "add", "must be a JSON object"),
        ('{"name": "add", "arguments": "a=1"}', "add", "no valid JSON"),
        ('{"name": "add", "arguments": {"a": NaN, "b": 1}}', "add", "NaN is not JSON"),
    ],
)
def test_a_call_that_cannot_be_executed_is_invalid(text: str, name: str | None, says: str) -> None:
    rest, [call] = recover(text, TOOLS)
    assert (rest, call.name) == ("", name)
    assert says in call.error


def test_a_schema_that_is_none_forbids_nothing() -> None:
    odd = tool("odd", a={"type": "no such type"})
    _, [call] = recover('{"name": "odd", "arguments": {"a": 1}}', [odd])
    assert not call.error


def test_deep_nesting_is_no_error() -> None:
    text = '{"name": "say", "arguments": ' + "[" * 100_000
    assert recover(text, TOOLS)[1][0].error
    assert recover("[" * 100_000, TOOLS) == ("[" * 100_000, [])
    assert recover('{"name": "say", "arguments": {"text": ' + "[" * 5000 + "]" * 5000 + "}}", TOOLS)[1][
        0
    ].error


# -- streams ------------------------------------------------------------------------------------------------


def test_text_is_shown_as_it_comes() -> None:
    recovery = Recovery(TOOLS)
    assert recovery.feed("Let me") == "Let me"
    assert recovery.feed(" think. ") == " think."
    assert recovery.feed('\n{"title": "') == ' \n{"title": "'
    assert recovery.finish() == ("", [])


def test_what_may_be_a_call_is_held_back_and_a_parsers_call_releases_it() -> None:
    recovery = Recovery(TOOLS)
    assert recovery.feed(f"So: {ADD}\n") == "So:"
    assert recovery.feed("And more.") == ""
    assert recovery.release() == f" {ADD}\nAnd more."
    assert recovery.feed(ADD) == ADD
    assert recovery.finish() == ("", [])


def in_pieces(text: str, sizes: list[int]) -> tuple[str, list[Any]]:
    recovery, shown, place = Recovery(TOOLS), "", 0
    for size in sizes:
        shown += recovery.feed(text[place : place + size])
        place += size
    shown += recovery.feed(text[place:])
    rest, calls = recovery.finish()
    return shown + rest, calls


fragments = st.sampled_from(
    [
        ADD,
        SAY,
        *OPENERS,
        "json\n",
        "\n",
        " ",
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        "name",
        '"name": "add"',
        "text",
        "ü🙂",
        *[
            "</tool_call>",
            "<",
            "``",
            "[TOOL",
            '{"name": "add", "arguments": ',
            '{"x": 1}',
            ",",
            ".",
            '{"name": ',
        ],
    ]
)
texts = st.lists(fragments | st.text(max_size=4), max_size=12).map("".join)


@given(texts, st.lists(st.integers(0, 9), max_size=30))
def test_pieces_make_no_difference(text: str, sizes: list[int]) -> None:
    assert in_pieces(text, sizes) == recover(text, TOOLS)


@given(texts)
def test_a_call_is_in_the_text_and_in_the_tools_and_text_is_never_lost(text: str) -> None:
    rest, calls = recover(text, TOOLS)
    for call in calls:
        assert call.name in ("add", "say", "now", None)
        assert call.name is None or json.dumps(call.name) in text
        if not call.error:
            arguments = json.loads(call.arguments)
            assert call.name != "add" or arguments == {"a": 1, "b": 2}
    if not calls:
        assert rest == text


@given(texts, st.lists(st.integers(0, 9), max_size=30))
def test_release_gives_everything_back(text: str, sizes: list[int]) -> None:
    recovery, shown, place = Recovery(TOOLS), "", 0
    for size in sizes:
        shown += recovery.feed(text[place : place + size])
        place += size
    assert shown + recovery.release() + recovery.feed(text[place:]) == text


@given(st.lists(st.integers(1, 7), max_size=40), st.integers(1, len(ADD) - 1))
def test_a_call_that_is_cut_off_is_never_executed(sizes: list[int], end: int) -> None:
    _, calls = in_pieces(f"So.\n{ADD[:end]}", sizes)
    assert all(call.error for call in calls)
    _, [marked] = in_pieces(f"<tool_call>{ADD[:end]}", sizes)
    assert marked.error


# -- reasoning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reasoning", [ADD, f"I need the sum.\n{ADD}\n", f"<tool_call>{ADD}</tool_call>"])
def test_a_call_that_ends_a_reasoning_is_recovered(reasoning: str) -> None:
    [call] = recover_from_reasoning(reasoning, TOOLS)
    assert (call.name, call.error) == ("add", "")


def test_a_call_that_was_only_thought_of_is_not() -> None:
    assert recover_from_reasoning(f"I could do\n{ADD}\nbut that is silly.", TOOLS) == []
    [call] = recover_from_reasoning(f"I could do\n{ADD}\nbut no:\n{SAY}", TOOLS)
    assert call.name == "say"
