"""How often one question calls the same tool: the third decision in which a small model needs help.

Whether a model of 135M parameters ends its answer after a call, or goes on to the next, has little to do
with the question. But what it writes when it has to go on does: where the question asks for one thing only,
a second call repeats the first or makes its values up. So a second call counts if

- the conversation contains what is new in it, and
- something in it is new: no earlier call has used it.

A few calls are written in one go, and counted until the first one that does not count. This is asked only
where the caller wants several calls (``parallel_tool_calls=True``), because it takes a generation of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent.engines.base import Engine, Request
from agent.formats.text.copying import copied_string_rules, said, single_values
from agent.formats.text.grammar import call_grammar
from agent.formats.text.prompt import Tool
from agent.formats.text.reader import MARKER

_FIRST, _MOST = 2, 4  # calls that are written to be counted: first a few, then all


def countable(tool: Tool) -> bool:
    """Whether calls of this tool can be told apart by what they are required to say."""
    return bool((tool["function"].get("parameters") or {}).get("required"))


async def times_asked_for(engine: Engine, request: Request, tool: Tool, words: Sequence[str]) -> int:
    """Return how many calls of the tool the conversation asks for: at least 1.

    Args:
        engine: The engine that writes the calls.
        request: A request of which the answer is a call of the tool.
        tool: The tool, in wire form.
        words: Words, blanks and marks of the conversation, as :func:`agent.formats.text.copying.words_of`
            gives them.
    """
    if not countable(tool):
        return 1
    required = tool["function"]["parameters"]["required"]
    strings = copied_string_rules(words)
    for calls in (_FIRST, _MOST):
        grammar = call_grammar([_without_options(tool, required)] * calls, calls="each", strings=strings)
        settings = {"temperature": 0.0, "structured_outputs": {"grammar": grammar}}
        response = await engine.chat({**request, **settings})
        counted = _counted(response["choices"][0]["message"].get("content") or "", words)
        if counted < calls:
            break
    return counted


def _without_options(tool: Tool, required: Sequence[str]) -> Tool:
    function = tool["function"]
    properties = {name: function["parameters"]["properties"].get(name) for name in required}
    return {
        **tool,
        "function": {**function, "parameters": {**function["parameters"], "properties": properties}},
    }


def _counted(text: str, words: Sequence[str]) -> int:
    used: set[str] = set()
    count = 0
    for line in text.split(MARKER)[1:]:
        try:
            values = list(single_values(json.loads(line)["arguments"]))
        except (ValueError, KeyError):  # it was cut off
            break
        new = [value for value in values if str(value) not in used]
        if count and (not new or not all(said(value, words) for value in new)):
            break
        used.update(map(str, values))
        count += 1
    return max(count, 1)
