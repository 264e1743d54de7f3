import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any, Literal

import pytest
from langchain_core.tools import InjectedToolArg, StructuredTool, Tool
from pydantic import BaseModel

import tools.arguments as arguments_module
from tools import ToolInputError, ToolRegistry, check_arguments, tool


@tool
def search(query: str, limit: int = 5, order: Literal["new", "old"] = "new") -> str:
    """Search."""
    return query


JSON_TOOL = StructuredTool.from_function(
    lambda **given: given,
    name="book",
    description="Book a table.",
    args_schema={
        "type": "object",
        "properties": {
            "people": {"type": "integer", "minimum": 1},
            "guests": {
                "type": "array",
                "items": {"type": "object", "properties": {"age": {"type": "number"}}},
            },
        },
        "required": ["people"],
        "additionalProperties": False,
    },
)


def problem(of: Any, arguments: object) -> str:
    with pytest.raises(ToolInputError) as caught:
        check_arguments(of, arguments)
    return str(caught.value)


def test_good_arguments_pass():
    check_arguments(search, {"query": "a", "limit": "7"})
    check_arguments(JSON_TOOL, {"people": 2, "guests": [{"age": 3.5}]})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["query: missing", "limit (integer, default 5)", 'one of "new", "old"']),
        ({"query": 3}, ["query:", "valid string", "got 3"]),
        ({"query": "a", "limit": "many"}, ["limit:", "integer", '"many"']),
        ({"query": "a", "limt": 3}, ["limt: unknown argument", "Did you mean limit?"]),
        ({"query": "a", "order": "up"}, ["order:", "'new' or 'old'"]),
        ("a", ["one JSON object", '"a"']),
        ([1], ["one JSON object"]),
    ],
)
def test_what_is_wrong_and_what_is_expected_is_said(arguments, words):
    said = problem(search, arguments)
    assert "search was not run" in said
    assert "search takes: query (string)" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["'people' is a required property"]),
        ({"people": 0}, ["people: 0 is less than the minimum of 1"]),
        ({"people": "two"}, ["people: 'two' is not of type 'integer'"]),
        ({"people": 2, "guests": [{"age": "old"}]}, ["guests.0.age: 'old' is not of type 'number'"]),
        ({"people": 2, "window": True}, ["'window' was unexpected"]),
    ],
)
def test_plain_json_schema(arguments, words):
    said = problem(JSON_TOOL, arguments)
    for word in words:
        assert word in said


def test_a_model_cannot_pass_what_only_the_program_may():
    @tool
    def pay(amount: int, account: Annotated[str, InjectedToolArg]) -> str:
        """Pay."""
        return account

    assert "account: unknown argument" in problem(pay, {"amount": 1, "account": "someone else's"})


def test_a_huge_wrong_value_is_not_quoted_whole():
    assert len(problem(search, {"query": "a", "limit": "x" * 100_000})) < 1000


def test_many_problems_are_counted_not_listed():
    said = problem(search, {f"argument{number}": 1 for number in range(100)})
    assert said.count("\n") < 15
    assert "more" in said


def test_a_reference_in_a_foreign_schema_fetches_nothing():
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/schema.json"
        schema = {"type": "object", "properties": {"a": {"$ref": address}}}
        foreign = StructuredTool.from_function(
            lambda **given: given, name="f", description="F.", args_schema=schema
        )
        said = problem(foreign, {"a": 1})
        server.shutdown()
    assert "schema is broken" in said
    assert asked == []


def test_a_model_that_takes_anything_takes_it():
    class Open(BaseModel):
        model_config = {"extra": "allow"}

    open_tool = StructuredTool.from_function(
        lambda **given: given, name="o", description="O.", args_schema=Open
    )
    check_arguments(open_tool, {"whatever": 1})


def test_a_tool_of_one_text_takes_exactly_one_argument():
    echo = Tool(name="echo", func=lambda text: text, description="Echo.")
    check_arguments(echo, {"__arg1": "a"})
    assert "exactly one" in problem(echo, {})


def test_a_schema_is_prepared_once_and_again_when_it_has_changed(monkeypatch):
    prepared = []
    make = arguments_module._new_validator
    monkeypatch.setattr(arguments_module, "_new_validator", lambda one: prepared.append(one) or make(one))
    schema = {"type": "object", "properties": {"once": {"type": "integer"}}}
    made = StructuredTool.from_function(lambda **given: given, name="f", description="F.", args_schema=schema)
    for _ in range(3):
        assert "'x' is not of type 'integer'" in problem(made, {"once": "x"})
    assert len(prepared) == 1
    schema["properties"]["once"] = {"type": "string"}
    check_arguments(made, {"once": "x"})
    assert len(prepared) == 2


def test_patterns_that_python_cannot_compile_forbid_nothing():
    schema = {"type": "object", "properties": {"a": {"pattern": "a{99999999999}"}, "b": {"enum": [{1, 2}]}}}
    made = StructuredTool.from_function(lambda **given: given, name="f", description="F.", args_schema=schema)
    check_arguments(made, {"a": "b"})


def test_patterns_that_only_other_languages_read():
    schema = {
        "type": "object",
        "properties": {
            "word": {"type": "string", "pattern": r"^\p{L}+$"},
            "pattern": {"type": "string", "pattern": "^[a-z]+$"},
        },
        "patternProperties": {r"^\p{Lu}": {"type": "integer"}},
        "additionalProperties": False,
    }
    made = StructuredTool.from_function(lambda **given: given, name="f", description="F.", args_schema=schema)
    registry = ToolRegistry([made])
    check_arguments(registry.get("f"), {"word": "Straße", "pattern": "a", "Other": 1})
    assert "pattern: 'A' does not match" in problem(made, {"pattern": "A"})
    assert r"\p{L}" in str(registry.describe("f").parameters)
