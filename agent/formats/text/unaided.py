"""Models that need no help with their calls: what larger ones are asked, and which ones those are.

The decisions that this package takes from a model (whether to call: :mod:`~agent.formats.text.decision`; how
often: :mod:`~agent.formats.text.repeats`; with which options: :mod:`~agent.formats.text.options`; in whose
words: :mod:`~agent.formats.text.copying`) were made for a model of 135M parameters, and measured on it alone.
They know nothing that a model which understands the question does not know better: they turn a switch on
because its name was said, and drop what was said in other words. So a larger model decides by itself, in one
request. It writes freely until it writes a call's marker, from where on the line is held to the tools; a
grammar for the whole answer is left for where a call is required.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from agent.engines.base import Request
from agent.formats.text.grammar import call_grammar
from agent.formats.text.prompt import Tool
from agent.formats.text.reader import MARKER

SMALL = 2e9
"""Parameters below which a model is helped. Of the sizes around it none has been measured here: models of one
or two billion parameters that were not trained on tools are not known to decide well, those of seven are."""


def needs_help(parameters: int | None) -> bool:
    """Whether a model of so many parameters needs help.

    One of unknown size does: with help a model of any size makes calls, without it a small one makes none.
    """
    return parameters is None or parameters < SMALL


def own_decision(request: Request) -> dict[str, Any] | None:
    """Return what holds the answer of a model that decides by itself, as vLLM's structured outputs.

    Args:
        request: A chat request with tools.

    Returns:
        None where no call may be made, or where the answer in words has a form of its own, which cannot be
        held together with calls: then whether to call must be decided before.
    """
    tools, choice = request["tools"], request.get("tool_choice", "auto")
    if choice == "none":
        return None
    several = request.get("parallel_tool_calls") is not False
    if isinstance(choice, dict):
        named = [tool for tool in tools if tool["function"]["name"] == choice["function"]["name"]]
        return {"grammar": call_grammar(named, calls="one")}
    calls: Literal["one", "any"] = "any" if several else "one"
    if choice == "required":
        return {"grammar": call_grammar(tools, calls=calls)}
    if request.get("response_format") or request.get("structured_outputs"):
        return None
    return {"structural_tag": call_tags(tools, several=several)}


def call_tags(tools: Sequence[Tool], *, several: bool = True) -> str:
    """Return xgrammar's structural tag that holds a line to a call, once its marker is written.

    Args:
        tools: The tools that may be called, in wire form.
        several: Whether more may follow a call.
    """
    tag = {
        "type": "tag",
        "begin": MARKER,
        "content": {"type": "grammar", "grammar": _after_marker(call_grammar(tools, calls="one"))},
        "end": "",
    }
    form: dict[str, Any] = {"type": "triggered_tags", "triggers": [MARKER], "tags": [tag]}
    if not several:
        form["stop_after_first"] = True
    return json.dumps({"type": "structural_tag", "format": form}, ensure_ascii=False)


def _after_marker(grammar: str) -> str:
    return grammar.replace(f'"{MARKER} {{', '" {')
