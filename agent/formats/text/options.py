"""Which optional parameters a question asks for: the second decision in which a small model needs help.

Left alone, a model of 135M parameters ends a call after its required parameters, whatever else was said.
Made to write an optional one, it always finds a value, and hardly ever says ``null``; but how sure it is of
that value tells the two cases apart. So the call is first written once with all of its optional parameters,
texts being copied from the conversation, and a value is kept if

- the conversation contains it,
- no other parameter has it already, and
- the model was sure of it.

A switch is asked for if the conversation says its name, and is then turned on: small models prefer
``false`` even so. What is kept is written into the grammar; all other optional parameters are left to the
model, as they would be without this. The thresholds come from ``benchmarks/bfcl.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.engines.base import Engine, Request
from agent.formats.text.copying import copied_string_rules, mentioned, said, single_values
from agent.formats.text.grammar import call_grammar
from agent.formats.text.prompt import Tool

_SURE = -1.0  # nats, of a whole value
_ON = frozenset({"include", "allow", "enable", "with", "use", "show", "get", "is", "has", "as", "return"})
_NO = frozenset({"no", "not", "without", "exclude", "excluding", "except", "don", "doesn", "skip", "disable"})


async def with_options(engine: Engine, request: Request, tool: Tool, words: Sequence[str]) -> Tool:
    """Return the tool with those optional parameters fixed that the conversation asks for.

    Args:
        engine: An engine that gives the log-probabilities of its tokens.
        request: A request of which the answer is a call of the tool.
        tool: The tool, in wire form.
        words: Words, blanks and marks of the conversation, as :func:`agent.formats.text.copying.words_of`
            gives them.
    """
    parameters = tool["function"].get("parameters") or {}
    required, optional = _split(parameters)
    if not optional:
        return tool
    switches = {name for name in optional if _kind(parameters, name) == "boolean"}
    fixed: dict[str, Any] = {name: True for name in switches if _turned_on(name, words)}
    if wanted := [name for name in optional if name not in switches]:
        order = [*required, *wanted]
        text, tokens = await _written(engine, request, _narrowed(tool, {}, order, order), words)
        fixed |= _asked_for(text, tokens, wanted, words)
    fixed = {name: fixed[name] for name in optional if name in fixed}
    rest = [name for name in optional if name not in fixed]
    return _narrowed(tool, fixed, [*required, *fixed, *rest], [*required, *fixed])


def _split(parameters: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of required and of optional parameters, each in the schema's order."""
    names, required = list(parameters.get("properties") or {}), set(parameters.get("required") or ())
    return [name for name in names if name in required], [name for name in names if name not in required]


def _kind(parameters: Mapping[str, Any], name: str) -> Any:
    schema = parameters["properties"][name]
    return schema.get("type") if isinstance(schema, Mapping) else None


def _narrowed(tool: Tool, fixed: Mapping[str, Any], order: Sequence[str], required: Sequence[str]) -> Tool:
    """Return the tool with these parameters in this order, some of them with one value only."""
    function = tool["function"]
    known = function["parameters"]["properties"]
    properties = {name: {"const": fixed[name]} if name in fixed else known[name] for name in order}
    parameters = {**function["parameters"], "properties": properties, "required": list(required)}
    return {**tool, "function": {**function, "parameters": parameters}}


async def _written(
    engine: Engine, request: Request, tool: Tool, words: Sequence[str]
) -> tuple[str, list[tuple[str, float]]]:
    """Return the likeliest call of the tool, and its tokens with their log-probabilities in nats."""
    grammar = call_grammar([tool], calls="one", strings=copied_string_rules(words))
    greedy = {
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 0,
        "structured_outputs": {"grammar": grammar},
    }
    response = await engine.chat({**request, **greedy})
    choice = response["choices"][0]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    return choice["message"].get("content") or "", [(one["token"], one["logprob"]) for one in tokens]


def _asked_for(
    text: str, tokens: Sequence[tuple[str, float]], names: Sequence[str], words: Sequence[str]
) -> dict[str, Any]:
    try:
        arguments = json.loads(text[text.index("{") :])["arguments"]
    except (ValueError, KeyError):  # it was cut off
        return {}
    kept = {}
    for name in names:
        if name not in arguments:  # the engine does not hold to grammars
            continue
        value = arguments[name]
        rest = {key: other for key, other in arguments.items() if key != name}
        known = {str(other) for other in single_values(rest)}
        new = not known.intersection(map(str, single_values({name: value})))
        if new and said(value, words) and _sureness(tokens, name, value) >= _SURE:
            kept[name] = value
    return kept


def _turned_on(name: str, words: Sequence[str]) -> bool:
    """Whether the conversation names a switch, and denies nothing."""
    parts = [part for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) if part.lower() not in _ON]
    denied = any(word.lower() in _NO for word in words)
    return bool(parts) and not denied and mentioned(" ".join(parts), words)


def _sureness(tokens: Sequence[tuple[str, float]], name: str, value: Any) -> float:
    """Return the log-probability of a value in the text that these tokens make, in nats."""
    text = "".join(token for token, _ in tokens)
    head = f"{json.dumps(name)}: "
    start = text.find(head) + len(head)
    end = start + len(json.dumps(value, ensure_ascii=False))
    if start < len(head):
        return float("-inf")
    total, position = 0.0, 0
    for token, logprob in tokens:
        if position < end and position + len(token) > start:
            total += logprob
        position += len(token)
    return total
