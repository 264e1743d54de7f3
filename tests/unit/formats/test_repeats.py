"""How many calls of one tool a question asks for, on an engine whose calls are written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agent.engines import ScriptedEngine
from agent.errors import EngineError
from agent.formats.text.copying import words_of
from agent.formats.text.repeats import times_asked_for

PLAY = {
    "type": "function",
    "function": {
        "name": "play",
        "parameters": {
            "type": "object",
            "properties": {
                "artist": {"type": "string"},
                "minutes": {"type": "integer"},
                "loud": {"type": "boolean"},
            },
            "required": ["artist", "minutes"],
        },
    },
}
BOTH = "Play Abba and Queen for 20 and 15 minutes."


def lines(calls: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f'TOOL_CALL: {{"name": "play", "arguments": {json.dumps(call)}}}' for call in calls)


async def times(calls: Sequence[tuple[Any, Any]], question: str = BOTH) -> tuple[int, ScriptedEngine]:
    written = [{"artist": artist, "minutes": minutes} for artist, minutes in calls]
    engine = ScriptedEngine([lines(written[:2]), lines(written[:4])])
    words = words_of([{"role": "user", "content": question}])
    [count] = await times_asked_for(engine, {"messages": []}, [PLAY], words)
    return count, engine


@pytest.mark.parametrize(
    ("calls", "count"),
    [
        ([("Abba", 20), ("Queen", 15), ("Abba", 20), ("Abba", 20)], 2),
        ([("Abba", 20), ("Abba", 20)], 1),
        ([("Abba", 20), ("Abba", 15)], 2),
        ([("Abba", 20), ("Nena", 15)], 1),
        ([("Abba", 20), ("Queen", 30)], 1),
        ([("Nena", 30), ("Abba", 20), ("Queen", 15), ("Queen", 20)], 3),
        ([(["Abba", "Queen"], 20), ("Queen", 20)], 1),
    ],
)
async def test_a_call_counts_if_what_is_new_in_it_was_said(calls: list[Any], count: int) -> None:
    assert (await times([*calls, *calls[:2]][:4]))[0] == count


async def test_more_calls_are_written_only_where_all_count() -> None:
    _, engine = await times([("Abba", 20), ("Abba", 20)])
    assert len(engine.requests) == 1
    _, engine = await times([("Abba", 20), ("Queen", 15), ("Abba", 20), ("Queen", 15)])
    assert [
        request["structured_outputs"]["grammar"].split("\n")[0].count("call") for request in engine.requests
    ] == [2, 4]
    assert "loud" not in engine.requests[0]["structured_outputs"]["grammar"]


async def test_a_call_that_is_cut_off_does_not_count() -> None:
    engine = ScriptedEngine(
        [lines([{"artist": "Abba", "minutes": 20}]) + '\nTOOL_CALL: {"name": "play", "arg']
    )
    words = words_of([{"role": "user", "content": BOTH}])
    assert await times_asked_for(engine, {"messages": []}, [PLAY], words) == [1]


async def test_a_tool_without_required_parameters_is_called_once() -> None:
    engine = ScriptedEngine([])
    for tool in (
        {"function": {"name": "now"}},
        {"function": {"name": "now", "parameters": {"properties": {"a": {}}}}},
    ):
        assert await times_asked_for(engine, {"messages": []}, [tool], ["word"]) == [1]
    assert engine.requests == []


async def test_what_another_tool_is_asked_for_is_nothing_new() -> None:
    def area(name: str) -> dict[str, Any]:
        parameters = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    def written(name: str, *sizes: int) -> str:
        return "\n".join(f'TOOL_CALL: {{"name": "{name}", "arguments": {{"size": {n}}}}}' for n in sizes)

    async def counts(question: str, circle: Sequence[int], square: Sequence[int]) -> list[int]:
        firsts = [written("circle", *circle[:2]), written("square", *square[:2])]
        engine = ScriptedEngine([*firsts, written("circle", *circle)])
        words = words_of([{"role": "user", "content": question}])
        return await times_asked_for(engine, {"messages": []}, [area("circle"), area("square")], words)

    assert await counts("Areas of a circle of 5 and a square of 7?", [5, 7], [7, 5]) == [1, 1]
    assert await counts("Of circles of 5 and 6, and a square of 7?", [5, 6, 7, 5], [7, 5]) == [2, 1]


class Unequal(ScriptedEngine):
    """Writes for ever, and refuses the second request."""

    ended = False

    async def chat(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.requests.append(dict(request))
        if len(self.requests) == 2:
            raise EngineError("it failed")
        try:
            return await asyncio.sleep(600, {})
        finally:
            self.ended = True


async def test_a_failure_ends_the_others_at_once() -> None:
    engine = Unequal([])
    async with asyncio.timeout(60):
        with pytest.raises(EngineError, match="it failed"):
            await times_asked_for(engine, {"messages": []}, [PLAY, PLAY], ["Abba"])
        await asyncio.sleep(0.01)
    assert engine.ended
