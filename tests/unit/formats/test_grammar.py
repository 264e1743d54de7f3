"""The grammar of calls, compiled and matched by the library that the engine uses."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field

from agent.formats.text.grammar import call_grammar, takes_text

xgrammar = pytest.importorskip("xgrammar", reason="comes with vLLM: install the cpu or gpu extra")


def accepts(tools: list[Any], text: str, *, calls: Literal["each", "one", "any"] = "one") -> bool:
    from xgrammar.testing import _is_grammar_accept_string

    grammar = xgrammar.Grammar.from_ebnf(call_grammar(tools, calls=calls))
    return bool(_is_grammar_accept_string(grammar, text))


def tool(
    name: str, properties: dict[str, Any], required: list[str] | None = None, **extra: Any
) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required or [], **extra}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def line(name: str, arguments: str) -> str:
    return f'TOOL_CALL: {{"name": "{name}", "arguments": {arguments}}}'


CASES: list[tuple[dict[str, Any], list[str], str, bool]] = [
    ({"a": {"type": "integer"}}, ["a"], '{"a": 12}', True),
    ({"a": {"type": "integer"}}, ["a"], '{"a": -3}', True),
    ({"a": {"type": "integer"}}, ["a"], '{"a": 1.5}', False),
    ({"a": {"type": "integer"}}, ["a"], '{"a": 012}', False),
    ({"a": {"type": "integer"}}, ["a"], "{}", False),
    ({"a": {"type": "integer"}}, [], "{}", True),
    ({"a": {"type": "integer"}}, ["a"], '{"b": 1}', False),
    ({"a": {"type": "number"}}, ["a"], '{"a": 1.25}', True),
    ({"a": {"type": "boolean"}}, ["a"], '{"a": true}', True),
    ({"a": {"type": "boolean"}}, ["a"], '{"a": "true"}', False),
    ({"a": {"type": "string"}}, ["a"], '{"a": "x \\" y é"}', True),
    ({"a": {"type": "string"}}, ["a"], '{"a": "line\nbreak"}', False),
    ({"a": {"enum": ["x", "y z", 3]}}, ["a"], '{"a": "y z"}', True),
    ({"a": {"enum": ["x", "y z", 3]}}, ["a"], '{"a": 3}', True),
    ({"a": {"enum": ["x"]}}, ["a"], '{"a": "w"}', False),
    ({"a": {"const": "k"}}, ["a"], '{"a": "k"}', True),
    ({"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, ["a"], '{"a": null}', True),
    ({"a": {"type": ["string", "null"]}}, ["a"], '{"a": null}', True),
    ({"a": {"type": "array", "items": {"type": "integer"}}}, ["a"], '{"a": [1, 2, 3]}', True),
    ({"a": {"type": "array", "items": {"type": "integer"}}}, ["a"], '{"a": []}', True),
    ({"a": {"type": "array", "items": {"type": "integer"}, "minItems": 1}}, ["a"], '{"a": []}', False),
    (
        {"a": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}},
        ["a"],
        '{"a": [1, "x"]}',
        True,
    ),
    ({"a": {"type": "array"}}, ["a"], '{"a": [1, "x", null, {"k": [true]}]}', True),
    ({"a": {"type": "object"}}, ["a"], '{"a": {"k": 1, "l": "m"}}', True),
    (
        {"a": {"type": "object", "additionalProperties": {"type": "integer"}}},
        ["a"],
        '{"a": {"k": "v"}}',
        False,
    ),
    ({"a": {}}, ["a"], '{"a": [1, {"b": "c"}]}', True),
    ({"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}}, ["b"], '{"b": 1}', True),
    (
        {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        ["b"],
        '{"a": 1, "b": 1}',
        True,
    ),
    (
        {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        ["b"],
        '{"b": 1, "c": 1}',
        True,
    ),
    (
        {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        ["b"],
        '{"a": 1, "c": 1}',
        False,
    ),
    ({"a": {"type": "integer"}, "b": {"type": "integer"}}, [], '{"b": 1}', True),
    ({'quo"te': {"type": "integer"}}, ['quo"te'], '{"quo\\"te": 1}', True),
]


@pytest.mark.parametrize(("properties", "required", "arguments", "fits"), CASES)
def test_arguments(properties: dict[str, Any], required: list[str], arguments: str, fits: bool) -> None:
    assert accepts([tool("f", properties, required)], line("f", arguments)) is fits


def test_only_bound_tools_can_be_named() -> None:
    tools = [tool("f", {}), tool("g", {})]
    assert accepts(tools, line("g", "{}"))
    assert not accepts(tools, line("h", "{}"))


def test_how_many_calls() -> None:
    f, g = line("f", "{}"), line("g", "{}")
    tools = [tool("f", {}), tool("g", {})]
    for calls, texts in {
        "one": [f, g],
        "any": [f, g, f"{f}\n{f}", f"{g}\n{f}\n{g}"],
        "each": [f"{f}\n{g}"],
    }.items():
        for text in ("", "Hello.", f, g, f"{f}\n{f}", f"{f}\n{g}", f"{g}\n{f}\n{g}", f"{f}{g}"):
            expected = text in texts or (calls == "any" and text == f"{f}\n{g}")
            assert accepts(tools, text, calls=calls) is expected, (calls, text)  # type: ignore[arg-type]


def test_a_tool_without_parameters() -> None:
    assert accepts([{"type": "function", "function": {"name": "now"}}], line("now", "{}"))


class Branch(BaseModel):
    """A tree, which refers to itself."""

    label: Literal["leaf", "node"]
    weight: float | None = None
    children: list[Branch] = Field(default_factory=list)


def test_schemas_with_references_to_themselves() -> None:
    tools = [convert_to_openai_tool(Branch)]
    inner = '{"label": "leaf", "weight": 1.5}'
    assert accepts(tools, line("Branch", f'{{"label": "node", "children": [{inner}, {inner}]}}'))
    assert not accepts(tools, line("Branch", '{"label": "root"}'))
    by_reference = {
        "function": {"name": "b", "parameters": {"$defs": {"B": tools[0]}, "$ref": "#/$defs/missing"}}
    }
    assert accepts([by_reference], line("b", '{"what": "ever"}'))


def test_schemas_that_add_to_one_another() -> None:
    known = {
        "Base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        "Named": {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"name": {"type": "string"}}}]},
        "Node": {"allOf": [{"$ref": "#/$defs/Named"}, {"properties": {"next": {"$ref": "#/$defs/Node"}}}]},
        "Loop": {"allOf": [{"$ref": "#/$defs/Loop"}, True, {"properties": {"a": {"type": "integer"}}}]},
    }
    fitting = {
        "Named": ['{"id": 1}', '{"id": 1, "name": "x"}'],
        "Node": ['{"id": 1, "next": {"id": 2, "name": "x"}}'],
    }
    for name, values in fitting.items():
        tools = [tool("f", {"a": {"$ref": f"#/$defs/{name}"}}, ["a"], **{"$defs": known})]
        assert all(accepts(tools, line("f", f'{{"a": {value}}}')) for value in values)
        assert not accepts(tools, line("f", '{"a": {"name": "x"}}'))
    assert call_grammar([tool("f", {"a": {"$ref": "#/$defs/Loop"}}, **{"$defs": known})], calls="one")


@pytest.mark.parametrize(
    ("one", "other", "fits", "does_not"),
    [
        ({"enum": ["x", "y"]}, {"description": "A letter."}, '"x"', "5"),
        ({"enum": ["x", "y"]}, {"enum": ["y", "z"]}, '"y"', '"z"'),
        ({"const": 1}, True, "1", "2"),
        (
            {"type": "object", "properties": {"p": {"type": "integer"}}, "required": ["p"]},
            {"type": "object", "properties": {"q": {"type": "integer"}}, "required": ["q"]},
            '{"p": 1, "q": 2}',
            '{"q": 2}',
        ),
    ],
)
def test_a_property_that_several_schemas_describe(one: Any, other: Any, fits: str, does_not: str) -> None:
    members = [{"properties": {"a": each}} for each in (one, other)]
    for schema in ({"allOf": members}, {"properties": {"a": one}, "allOf": members[1:]}):
        tools = [tool("f", {"b": {"type": "object", "required": ["a"], **schema}}, ["b"])]
        assert accepts(tools, line("f", f'{{"b": {{"a": {fits}}}}}'))
        assert not accepts(tools, line("f", f'{{"b": {{"a": {does_not}}}}}'))


def test_a_property_by_which_two_schemas_refer_to_themselves() -> None:
    def node(*names: str, **more: Any) -> dict[str, Any]:
        return {"properties": {"next": {"allOf": [{"$ref": f"#/$defs/{name}"} for name in names]}, **more}}

    known = {"A": node("A", "B", x={"type": "integer"}), "B": node("B", "A"), "C": node("A", "B", "C")}
    both = {"allOf": [*({"$ref": f"#/$defs/{name}"} for name in "ABC"), {"type": "object"}]}
    tools = [tool("f", {"a": both}, ["a"], **{"$defs": known})]
    assert accepts(tools, line("f", '{"a": {"next": {"next": {}, "x": 1}}}'))


@pytest.mark.parametrize(
    ("schema", "free"),
    [
        ({"type": "string"}, True),
        ({"type": "array", "items": {"type": "string"}}, True),
        ({"type": "object"}, True),
        ({}, True),
        ({"type": "integer"}, False),
        ({"enum": ["string", "any"]}, False),
        ({"type": "array", "items": {"type": "number"}}, True),  # rows of numbers are copied as well
    ],
)
def test_which_calls_take_texts(schema: dict[str, Any], free: bool) -> None:
    assert takes_text(call_grammar([tool("string", {"key": schema}, ["key"])], calls="one")) is free
