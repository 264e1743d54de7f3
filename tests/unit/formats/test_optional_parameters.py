"""Optional parameters that a question asks for, on an engine whose calls and certainties are written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agent.engines import ScriptedEngine
from agent.formats.text.copying import words_of
from agent.formats.text.options import with_options

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "unit": {"type": "string"},
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "include_humidity": {"type": "boolean"},
                "places": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    },
}
QUESTION = "How warm is it in Rome, Celsius, for 3 days, with humidity, in the centre and the harbour?"


class Sure(ScriptedEngine):
    """Writes these arguments, a token per character; the characters of a value share its log-probability."""

    def __init__(self, arguments: Mapping[str, Any], sureness: Mapping[str, float], cut: int = 0) -> None:
        super().__init__([])
        self.arguments, self.sureness, self.cut = arguments, sureness, cut

    async def chat(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.requests.append(dict(request))
        tokens = [('TOOL_CALL: {"name": "weather", "arguments": {', -9.0)]
        for position, (name, value) in enumerate(self.arguments.items()):
            text = json.dumps(value)
            tokens += [(", " if position else "", 0.0), (f'"{name}": ', -9.0)]
            tokens += [(one, self.sureness.get(name, 0.0) / len(text)) for one in text]
        tokens.append(("}}", -9.0))
        text = "".join(token for token, _ in tokens)
        content = [{"token": token, "logprob": logprob} for token, logprob in tokens]
        message = {"content": text[: self.cut] if self.cut else text}
        return {"choices": [{"message": message, "logprobs": {"content": content}}]}


async def fixed(
    arguments: Mapping[str, Any], sureness: Mapping[str, float] = {}, question: str = QUESTION, cut: int = 0
) -> dict[str, Any]:
    words = words_of([{"role": "user", "content": question}])
    engine = Sure({"city": "Rome", "unit": "x", "days": 9, "places": [], **arguments}, sureness, cut)
    tool = await with_options(engine, {"messages": []}, WEATHER, words)
    parameters = tool["function"]["parameters"]
    constants = {name: s["const"] for name, s in parameters["properties"].items() if "const" in s}
    assert set(parameters["properties"]) == set(WEATHER["function"]["parameters"]["properties"])  # type: ignore[index]
    assert parameters["required"] == ["city", *constants]
    assert list(parameters["properties"])[: 1 + len(constants)] == parameters["required"]
    return constants


@pytest.mark.parametrize(
    ("arguments", "sureness", "kept"),
    [
        ({"unit": "Celsius"}, {}, {"unit": "Celsius"}),
        ({"unit": "Celsius"}, {"unit": -0.9}, {"unit": "Celsius"}),
        ({"unit": "Celsius"}, {"unit": -1.1}, {}),
        ({"unit": "Fahrenheit"}, {}, {}),
        ({"unit": "Rome"}, {}, {}),
        ({"unit": "3", "days": 3}, {}, {}),
        ({"days": 3}, {}, {"days": 3}),
        ({"days": 3}, {"days": -2.0}, {}),
        ({"places": ["centre", "harbour"]}, {}, {"places": ["centre", "harbour"]}),
        ({"places": ["centre", "beach"]}, {}, {}),
        ({"unit": None, "days": None, "places": None}, {}, {}),
    ],
)
async def test_what_is_said_new_and_sure_is_kept(
    arguments: Mapping[str, Any], sureness: Mapping[str, float], kept: Mapping[str, Any]
) -> None:
    assert await fixed(arguments, sureness) == {**kept, "include_humidity": True}


@pytest.mark.parametrize(
    ("question", "on"),
    [
        ("Weather in Rome with humidity?", True),
        ("Weather in Rome, humid or not?", False),
        ("Weather in Rome?", False),
        ("Weather in Rome without humidity?", False),
    ],
)
async def test_a_switch_is_turned_on_by_its_name(question: str, on: bool) -> None:
    assert await fixed({}, question=question) == ({"include_humidity": True} if on else {})


async def test_a_call_that_is_cut_off_says_nothing() -> None:
    assert await fixed({"unit": "Celsius"}, cut=50) == {"include_humidity": True}


async def test_nothing_is_asked_where_nothing_is_optional() -> None:
    tool = {"function": {"name": "f", "parameters": {"properties": {"a": {}}, "required": ["a"]}}}
    engine = Sure({}, {})
    assert await with_options(engine, {"messages": []}, tool, ["word"]) is tool
    assert await with_options(engine, {"messages": []}, {"function": {"name": "f"}}, ["word"])
    assert engine.requests == []


async def test_the_request_is_greedy_and_under_a_grammar() -> None:
    engine = Sure({"city": "Rome", "unit": "x", "days": 9, "places": []}, {})
    await with_options(
        engine,
        {"messages": [], "temperature": 0.9},
        WEATHER,
        words_of([{"role": "user", "content": "Rome?"}]),
    )
    [request] = engine.requests
    assert request["temperature"] == 0.0
    assert "said_0" in request["structured_outputs"]["grammar"]
