"""How often one question calls the same tool: the third decision in which a small model needs help.

Whether a model of 135M parameters ends its answer after a call, or goes on to the next, has little to do
with the question. But what it writes when it has to go on does: where the question asks for one thing only,
a second call repeats the first or makes its values up. So a second call counts if

- the conversation contains what is new in it, and
- something in it is new: no earlier call has used it.

A few calls are written in one go, and counted until the first one that does not count. Where a question is
about several tools, what the first call of another one says is nothing new: «the area of a circle of 5 and of
a square of 7» asks for one call of each.

Several calls are what clients of OpenAI's API expect by default, so this is asked of every question that
calls a tool, unless ``parallel_tool_calls`` is False; it takes a short generation of its own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from agent.engines.base import Engine, Request
from agent.engines.loop import together
from agent.formats.text.copying import copied_string_rules, said, single_values
from agent.formats.text.grammar import call_grammar
from agent.formats.text.prompt import Tool
from agent.formats.text.reader import MARKER

_FIRST, _MOST = 2, 4  # calls that are written to be counted: first a few, then all


def countable(tool: Tool) -> bool:
    """Whether calls of this tool can be told apart by what they are required to say."""
    return bool((tool["function"].get("parameters") or {}).get("required"))


async def times_asked_for(
    engine: Engine, request: Request, tools: Sequence[Tool], words: Sequence[str]
) -> list[int]:
    """Return for each tool how many calls of it the conversation asks for: at least 1.

    Args:
        engine: The engine that writes the calls.
        request: A request of which the answer is calls of the tools.
        tools: The tools, in wire form.
        words: Words, blanks and marks of the conversation, as :func:`agent.formats.text.copying.words_of`
            gives them.
    """
    strings = copied_string_rules(words)

    async def written(tool: Tool, calls: int) -> list[list[Any]]:
        if not countable(tool):
            return []
        required = tool["function"]["parameters"]["required"]
        grammar = call_grammar([_without_options(tool, required)] * calls, calls="each", strings=strings)
        settings = {"temperature": 0.0, "structured_outputs": {"grammar": grammar}}
        response = await engine.chat({**request, **settings})
        return _values(response["choices"][0]["message"].get("content") or "")

    async def counted(tool: Tool, first: list[list[Any]], others: list[list[list[Any]]]) -> int:
        taken = {str(value) for calls in others for value in (calls or [[]])[0]}
        times = _counted(first, words, taken)
        return _counted(await written(tool, _MOST), words, taken) if times == _FIRST else times

    firsts = await together([written(tool, _FIRST) for tool in tools])
    return await together(
        [counted(tool, firsts[i], [*firsts[:i], *firsts[i + 1 :]]) for i, tool in enumerate(tools)]
    )


def _without_options(tool: Tool, required: Sequence[str]) -> Tool:
    function = tool["function"]
    known = function["parameters"].get("properties") or {}
    properties = {name: known.get(name) for name in required}
    return {
        **tool,
        "function": {**function, "parameters": {**function["parameters"], "properties": properties}},
    }


def _values(text: str) -> list[list[Any]]:
    """Return the single values of each call in the text, up to one that was cut off."""
    found = []
    for line in text.split(MARKER)[1:]:
        try:
            found.append(single_values(json.loads(line)["arguments"]))
        except (ValueError, KeyError):
            break
    return found


def _counted(calls: Sequence[Sequence[Any]], words: Sequence[str], taken: Collection[str]) -> int:
    used = set(taken)
    count = 0
    for values in calls:
        new = [value for value in values if str(value) not in used]
        if count and (not new or not all(said(value, words) for value in new)):
            break
        used.update(map(str, values))
        count += 1
    return max(count, 1)
