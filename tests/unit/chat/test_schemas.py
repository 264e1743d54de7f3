"""Schemas as vLLM holds them: a grammar of our own where it says as much, and nothing that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chat.schemas import down_levelled, for_vllm

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def members(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def fitted(schema: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return for_vllm({"messages": [], "response_format": form})


def test_plain_schemas_become_grammars() -> None:
    request = fitted(members(name=STRING, age=INTEGER))
    assert "response_format" not in request
    assert '"\\"name\\": "' in request["structured_outputs"]["grammar"]


def test_any_object_is_a_grammar_too() -> None:
    assert "grammar" in for_vllm({"response_format": {"type": "json_object"}})["structured_outputs"]


@pytest.mark.parametrize(
    "rule", [{"pattern": "^[a-z]+$"}, {"maxLength": 10}, {"minLength": 2}, {"format": "date-time"}]
)
def test_rules_of_strings_are_left_to_the_engine(rule: dict[str, Any]) -> None:
    request = fitted(members(name={**STRING, **rule}))
    assert request["response_format"]["json_schema"]["schema"]["properties"]["name"] == {**STRING, **rule}
    assert "structured_outputs" not in request


def test_wide_ranges_are_left_to_the_engine_and_small_ones_spelt_out() -> None:
    assert "response_format" in fitted(members(a={**INTEGER, "minimum": 0}))
    grammar = fitted(members(a={**INTEGER, "minimum": 3, "exclusiveMaximum": 6}))["structured_outputs"][
        "grammar"
    ]
    assert '("3" | "4" | "5")' in grammar


def test_short_arrays_are_spelt_out() -> None:
    schema = down_levelled({"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 2})
    assert [len(one["prefixItems"]) for one in schema["anyOf"]] == [1, 2]
    assert down_levelled({"type": "array", "items": INTEGER, "minItems": 3})["minItems"] == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"not": STRING},
        {"uniqueItems": True},
        {"multipleOf": 3},
        {"if": {}, "then": {}},
        {"patternProperties": {"^x": INTEGER}},
        {"dependentRequired": {"a": ["b"]}},
        {"contains": INTEGER},
        {"format": "iban"},
        {"pattern": "^(?=.*a)b$"},
        {"pattern": r"^\p{L}+$"},
        {"pattern": r"^(a)(b)(c)\3$"},
        {"pattern": 5},
    ],
)
def test_what_no_grammar_holds_is_left_out(rule: dict[str, Any]) -> None:
    assert down_levelled({"type": "string", **rule}) == STRING
    nested = {"anyOf": [{"type": "array", "items": {**STRING, **rule}}]}
    assert down_levelled(nested) == {"anyOf": [{"type": "array", "items": STRING}]}


def strict_tool(**pattern: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"word": {**STRING, **pattern}, "pattern": STRING}}
    return {"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}


def test_tools_go_without_patterns_where_an_engine_would_refuse_them() -> None:
    foreign, usual = strict_tool(pattern=r"^\p{L}+$"), strict_tool(pattern="^[a-z]+$")
    request = {"messages": [], "tools": [foreign, usual], "tool_choice": "auto"}
    assert for_vllm(request)["tools"] == [strict_tool(), usual]
    for tool in foreign, usual:
        del tool["function"]["strict"]
    assert for_vllm(request) == request  # nothing is held to them: they are words in a prompt
    held = for_vllm({**request, "tool_choice": "required"})["tools"]
    assert held[0]["function"]["parameters"] == strict_tool()["function"]["parameters"]
    assert held[1] == usual
    assert request["tools"] == [foreign, usual]


def test_names_by_patterns_go_with_what_they_are_excepted_from() -> None:
    tool = strict_tool()
    tool["function"]["parameters"] |= {"patternProperties": {r"^\p{L}": {}}, "additionalProperties": False}
    tool["function"]["parameters"]["properties"]["list"] = {"enum": [{"pattern": "("}]}
    (fitted,) = for_vllm({"messages": [], "tools": [tool]})["tools"]
    assert fitted["function"]["parameters"].keys() == {"type", "properties"}
    assert fitted["function"]["parameters"]["properties"]["list"] == {"enum": [{"pattern": "("}]}


def test_one_of_is_any_of_and_nothing_is_anything() -> None:
    assert down_levelled({"oneOf": [STRING, INTEGER]}) == {"anyOf": [STRING, INTEGER]}
    assert down_levelled({"enum": []}) == down_levelled(False) == down_levelled(True) == {}


def test_properties_are_not_taken_for_rules() -> None:
    schema = members(**{"not": STRING, "pattern": INTEGER})
    assert down_levelled(schema) == schema
    assert "structured_outputs" in fitted(schema)


def test_other_requests_stay_as_they_are() -> None:
    for request in (
        {"messages": []},
        {"response_format": {"type": "text"}},
        {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
    ):
        assert for_vllm(request) == request


def test_a_schema_may_refer_to_itself() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    assert (
        "ref_" in fitted({"$defs": {"node": node}, "$ref": "#/$defs/node"})["structured_outputs"]["grammar"]
    )
