"""Structured answers on the scripted engine: what is asked for, what comes back, and every way to fail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from agent import ChatVLLM
from agent.engines import Reply, ScriptedEngine
from agent.errors import ConfigurationError, StructuredOutputError


class Cat(BaseModel):
    """A cat."""

    name: str
    age: int = Field(ge=0)


class CatV1(BaseModelV1):
    """A cat."""

    name: str
    age: int


class CatDict(TypedDict):
    """A cat."""

    name: Annotated[str, ..., "what it is called"]
    age: Annotated[int, ..., "in years"]


@dataclass
class CatData:
    name: str
    age: int


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


SCHEMA = {
    "title": "Cat",
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
}
SCHEMA["required"] = ["name", "age"]
LUNA = '{"name": "Luna", "age": 12}'
VALUE = {"name": "Luna", "age": 12}


def build(*script: Any, **options: Any) -> tuple[ChatVLLM, ScriptedEngine]:
    engine = ScriptedEngine(list(script), repeat=True)
    return ChatVLLM(engine=engine, **options), engine


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (Cat, Cat(name="Luna", age=12)),
        (CatV1, CatV1(name="Luna", age=12)),
        (CatData, CatData("Luna", 12)),
        (CatDict, VALUE),
        (SCHEMA, VALUE),
        ({"type": "object", "properties": {"name": {"type": "string"}}}, VALUE),
        ({"name": "Cat", "schema": SCHEMA}, VALUE),
        ({"type": "json_schema", "json_schema": {"name": "Cat", "schema": SCHEMA}}, VALUE),
        ({"name": "cat", "description": "A cat.", "parameters": SCHEMA}, VALUE),
        (dict[str, Any], VALUE),
    ],
    ids=str,
)
async def test_every_kind_of_schema(schema: Any, expected: Any) -> None:
    model, engine = build(LUNA)
    cats = model.with_structured_output(schema)
    for result in (await cats.ainvoke("A cat?"), [one async for one in cats.astream("A cat?")][-1]):
        assert result == expected
        assert type(result) is type(expected)
    form = engine.requests[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["type"] == "object"
    assert form["json_schema"]["name"].isidentifier()
    model.close()


def test_a_list_is_an_answer_too() -> None:
    model, _ = build("[1, 2]")
    assert model.with_structured_output(list[int]).invoke("Two numbers?") == [1, 2]
    model.close()


def test_a_dictionary_grows_while_it_is_streamed() -> None:
    model, _ = build('{"name": "Luna of the long tail", "age": 12}')
    parts = list(model.with_structured_output(SCHEMA).stream("A cat?"))
    assert len(parts) > 3
    assert parts[-1] == {"name": "Luna of the long tail", "age": 12}
    model.close()


CUT = Reply('{"name": "Lu', finish_reason="length")


@pytest.mark.parametrize(
    ("reply", "schema", "says"),
    [
        (CUT, Cat, "cut off at its token limit"),
        (CUT, SCHEMA, "cut off at its token limit"),
        ("Luna, 12", Cat, "is no JSON"),
        ("Luna, 12", SCHEMA, "is no JSON"),
        ('{"name": "Luna"}', Cat, "does not fit Cat: age: Field required"),
        ('{"name": "Luna", "age": -1}', Cat, "age: Input should be greater"),
        ('{"name": "Luna"}', CatDict, "'age' is a required property"),
        ('{"name": "Luna", "age": "old"}', SCHEMA, "age: 'old' is not of type 'integer'"),
        ('{"name": "Luna"}', CatV1, "does not fit CatV1"),
        (Reply(tool_calls=[{"name": "look", "arguments": {"where": "up"}}]), Cat, "called look"),
    ],
)
def test_an_answer_that_is_none_is_an_error_whole_and_streamed(reply: Any, schema: Any, says: str) -> None:
    model, _ = build(reply)
    with pytest.raises(StructuredOutputError, match=says):
        model.with_structured_output(schema).invoke("A cat?")
    with pytest.raises(StructuredOutputError, match=says):
        list(model.with_structured_output(schema).stream("A cat?"))
    result = model.with_structured_output(schema, include_raw=True).invoke("A cat?")
    assert isinstance(result["raw"], AIMessage)
    assert result["parsed"] is None
    assert says in str(result["parsing_error"])
    model.close()


def test_the_raw_message_beside_what_was_read() -> None:
    model, _ = build(LUNA)
    result = model.with_structured_output(Cat, include_raw=True).invoke("A cat?")
    assert (result["parsed"], result["parsing_error"]) == (Cat(name="Luna", age=12), None)
    assert result["raw"].text == LUNA
    assert result["raw"].usage_metadata
    model.close()


# -- methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "expected"), [(Cat, Cat(name="Luna", age=12)), (SCHEMA, VALUE), (CatDict, VALUE)]
)
def test_by_a_forced_call(schema: Any, expected: Any) -> None:
    model, engine = build(
        lambda request: Reply(
            tool_calls=[{"name": request["tools"][0]["function"]["name"], "arguments": VALUE}]
        )
    )
    cats = model.with_structured_output(schema, method="function_calling")
    assert cats.invoke("A cat?") == expected
    assert list(cats.stream("A cat?"))[-1] == expected
    request = engine.requests[0]
    assert request["tool_choice"]["function"]["name"] == request["tools"][0]["function"]["name"]
    assert request["parallel_tool_calls"] is False
    assert "response_format" not in request
    model.close()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("No cat.", "did not call Cat"),
        (Reply(tool_calls=[{"name": "Cat", "arguments": '{"name": "Lu'}]), "did not call Cat"),
        (Reply(tool_calls=[{"name": "Cat", "arguments": {"name": "Luna"}}]), "age: Field required"),
    ],
)
def test_a_forced_call_that_is_none_is_an_error(reply: Any, says: str) -> None:
    model, _ = build(reply)
    with pytest.raises(StructuredOutputError, match=says):
        model.with_structured_output(Cat, method="function_calling").invoke("A cat?")
    model.close()


def test_patterns_of_other_languages_forbid_nothing() -> None:
    word = {"type": "string", "pattern": r"^\p{L}+$"}
    schema = {"title": "W", "type": "object", "properties": {"word": word, "age": {"type": "integer"}}}
    model, _ = build('{"word": "Straße", "age": 5}')
    assert model.with_structured_output(schema).invoke("A word?")["age"] == 5
    model.close()
    model, _ = build('{"word": "Straße", "age": "five"}')
    with pytest.raises(StructuredOutputError, match="age: 'five' is not of type 'integer'"):
        model.with_structured_output(schema).invoke("A word?")
    model.close()


def test_any_json() -> None:
    model, engine = build(LUNA)
    assert model.with_structured_output(method="json_mode").invoke("A cat as JSON?") == VALUE
    assert engine.requests[0]["response_format"] == {"type": "json_object"}
    assert model.with_structured_output(Cat, method="json_mode").invoke("A cat as JSON?") == Cat(**VALUE)
    model.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"schema": Cat, "method": "magic"}, "method='magic' is none of json_schema"),
        ({}, "needs a schema"),
        ({"schema": 5}, "cannot be structured by 5"),
        ({"schema": Cat, "method": "json_mode", "tools": [look]}, "with method='json_schema'"),
        ({"schema": list[int], "method": "function_calling"}, "a schema of objects"),
        ({"schema": {"title": "T", "type": "zzz"}}, "T: it is no JSON schema"),
        ({"schema": {"title": "T", "type": "object", "properties": 5}}, "T: it is no JSON schema"),
    ],
)
def test_contradictions_are_refused_at_once(arguments: dict[str, Any], says: str) -> None:
    model, engine = build(LUNA)
    with pytest.raises(ConfigurationError, match=says):
        model.with_structured_output(**arguments)
    assert not engine.requests
    model.close()


def test_further_arguments_of_the_call() -> None:
    model, engine = build(LUNA)
    model.with_structured_output(Cat, temperature=0.1, strict=True).invoke("A cat?")
    assert engine.requests[0]["temperature"] == 0.1
    assert engine.requests[0]["response_format"]["json_schema"]["strict"] is True
    model.close()


# -- beside tools -------------------------------------------------------------------------------------------

CALL = Reply(tool_calls=[{"name": "look", "arguments": {"where": "up"}}])


def test_bound_tools_are_kept_and_the_model_may_call_them_or_answer() -> None:
    model, engine = build(CALL, LUNA)
    cats = model.bind_tools([look]).with_structured_output(Cat, include_raw=True)
    called = cats.invoke("A cat?")
    assert (called["parsed"], called["parsing_error"]) == (None, None)
    assert called["raw"].tool_calls[0]["args"] == {"where": "up"}
    assert cats.invoke("A cat?")["parsed"] == Cat(**VALUE)
    request = engine.requests[0]
    assert [one["function"]["name"] for one in request["tools"]] == ["look"]
    assert request["response_format"]["type"] == "json_schema"
    model.close()


def test_a_call_without_a_place_for_it_is_an_error() -> None:
    model, _ = build(CALL)
    with pytest.raises(StructuredOutputError, match=r"called look .*include_raw"):
        model.with_structured_output(Cat, tools=[look]).invoke("A cat?")
    model.close()


def test_what_is_bound_stays_bound() -> None:
    model, engine = build("Hi")
    model.bind(temperature=0.1).bind_tools([look]).bind(top_p=0.5).invoke("Hi")
    request = engine.requests[0]
    assert (request["temperature"], request["top_p"]) == (0.1, 0.5)
    assert request["tools"]
    model.bind_tools([look], tool_choice="look").with_config(tags=["a"]).bind_tools([Cat]).invoke("Hi")
    again = engine.requests[1]
    assert [one["function"]["name"] for one in again["tools"]] == ["Cat"]
    assert again["tool_choice"] == "auto"
    model.close()


def test_the_grammar_is_not_what_is_asked_of_a_scripted_engine() -> None:
    """It answers to the request as it is written; vLLM gets the grammar (see test_schemas)."""
    model, engine = build(json.dumps(VALUE))
    model.with_structured_output(Cat).invoke("A cat?")
    assert "structured_outputs" not in engine.requests[0]
    model.close()
