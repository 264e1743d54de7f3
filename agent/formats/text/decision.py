"""«Answer or call, and what?»: the decision of ``tool_choice="auto"``, put so that a small model can make it.

Asked outright, a model of 135M parameters says yes to everything. But it does know whether a tool makes a
question *likely*: «What is 37 times 12?» is less surprising as a request for a calculator than as a request
for anything. So each tool is scored by the pointwise mutual information of the question and the tool, in
nats::

    score(tool) = log P(question | a request for this tool) - log P(question | a request)

The best tool is taken if its score reaches the threshold, and does so above the median tool as well: «what
was the result?» may become likelier through any tool, and is then about none. A further tool is taken if it
reaches the threshold by itself and the question is likelier still as a request for all of them: «read the
file» is explained by a reading tool, and a writing tool only takes away from that. Where no tool is taken,
the model answers in words.

Only the question's own tokens count, and the engine is asked for nothing but their likelihood: one short
prompt per tool, all at once. Measured in ``benchmarks/bfcl.py``, where the threshold comes from.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from agent.engines.base import Engine
from agent.engines.loop import together
from agent.formats.spans import content_span
from agent.formats.text.prompt import Message, Tool, one_line, text_of

THRESHOLD = 1.0  # nats, for the best tool
FURTHER = 0.5  # nats, for each tool beside it: one that the question is not about takes likelihood away


async def tools_asked_for(
    engine: Engine,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    *,
    least: int = 0,
    most: int = 1,
) -> list[Tool]:
    """Return those tools that the last message is about, in the order of ``tools``.

    Args:
        engine: An engine that gives the log-probabilities of its prompts.
        messages: The conversation; where its last message is no question (tool results are there, and it is
            time to answer), no tool is asked for.
        tools: The tools to choose from, in wire form.
        least: 1 to take the best tool whatever its score.
        most: How many tools to take at most.
    """
    last = messages[-1] if messages else {}
    question = text_of(last.get("content")) if last.get("role") == "user" else ""
    if not question.strip():
        return []
    nothing, *alone = await together(
        [_likelihood(engine, question, shown) for shown in ([], *([tool] for tool in tools))]
    )
    score = max(alone)
    common = statistics.median(alone) if len(alone) > 2 else nothing
    if score - max(nothing, common) < THRESHOLD and not least:
        return []
    taken = [alone.index(score)]
    others = [i for i, one in enumerate(alone) if i not in taken and one - nothing >= THRESHOLD]
    while others and len(taken) < most:
        further = await together(
            [_likelihood(engine, question, [tools[i] for i in (*taken, other)]) for other in others]
        )
        if max(further) - score < FURTHER:
            break
        score = max(further)
        taken.append(others.pop(further.index(score)))
    return [tools[i] for i in sorted(taken)]


async def _likelihood(engine: Engine, question: str, tools: Sequence[Tool]) -> float:
    """Return the log-probability of the question, in nats, as a request for these tools."""
    frame = f"{_introduction(tools)}\nREQUEST: "
    asked, silent = ({"messages": [{"role": "user", "content": frame + text}]} for text in (question, ""))
    scoring = {**asked, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    response, prompt, empty = await asyncio.gather(
        engine.chat(scoring), engine.render(asked), engine.render(silent)
    )
    positions = response["prompt_logprobs"][content_span(prompt, empty)]
    # One entry per position, for the token that stands there; the first position of a prompt has none.
    return sum(float(entry["logprob"]) for position in positions for entry in (position or {}).values())


def _introduction(tools: Sequence[Tool]) -> str:
    if not tools:
        return "Write a request."
    lines = ["This tool is available:" if len(tools) == 1 else "These tools are available:"]
    for function in (tool["function"] for tool in tools):
        parameters = ", ".join((function.get("parameters") or {}).get("properties") or ())
        lines.append(f"- {function['name']}({parameters}): {one_line(function.get('description'))}")
    lines += ["", "Write a request for it." if len(tools) == 1 else "Write a request for all of them."]
    return "\n".join(lines)
