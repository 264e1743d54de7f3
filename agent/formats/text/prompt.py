"""The text protocol's prompts: tools, calls and results as ordinary messages that any chat template takes.

There are two prompts. The *call* prompt lists the tools and shows the conversation with its calls as the
lines that the model would write; the *answer* prompt shows neither, only results, since a small model that
has seen call lines goes on writing them. In both, nothing that changes stands before the conversation, so
the engine's prefix cache serves every earlier turn of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from agent.formats.text.reader import MARKER

Message = dict[str, Any]
Tool = Mapping[str, Any]

_INSTRUCTIONS = f"""INSTRUCTIONS:
- To use a tool, write one line: {MARKER} {{"name": "tool name", "arguments": {{"parameter": "value"}}}}
- To use several tools, write one such line for each.
- You may write a short answer for the user beside the lines.
- When no tool is needed, or when the tool results are there, answer the user in plain words."""

_ANSWER_NOW = "Answer the question with the tool result."

# Shown before the conversation where a bound tool takes one text, as most tools of assistants do: they teach
# a small model to copy that text from the question. For tools with several parameters they do harm (see
# benchmarks/README.md), and such tools are not helped by more examples either.
_EXAMPLES = (
    ("What is 7 * 6?", "evaluate", {"formula": "7 * 6"}),
    ("How is the weather in Lima?", "get_weather", {"city": "Lima"}),
    ("Open report.pdf.", "open", {"file": "report.pdf"}),
)


def call_prompt(
    messages: Sequence[Message], tools: Sequence[Tool], *, examples: bool = True
) -> list[Message]:
    """Return the messages from which the model writes calls.

    Args:
        messages: The conversation, in wire form.
        tools: The tools, in wire form.
        examples: Whether the model may need examples of calls.
    """
    system, rest = _split_system(messages)
    block = f"{_list_tools(tools)}\n\n{_INSTRUCTIONS}"
    flat: list[Message] = [{"role": "system", "content": f"{system}\n\n{block}" if system else block}]
    if examples and any(_takes_one_text(tool) for tool in tools):
        for question, name, arguments in _EXAMPLES:
            flat.append({"role": "user", "content": question})
            flat.append({"role": "assistant", "content": _line(name, json.dumps(arguments))})
    for message in rest:
        text = text_of(message.get("content"))
        if message["role"] == "tool":
            _add_result(flat, _result(message, text))
        elif message["role"] == "assistant":
            lines = [text] if text else []
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            lines += [_line(call["name"], call["arguments"]) for call in calls]
            flat.append({"role": "assistant", "content": "\n".join(lines)})
        else:
            flat.append({"role": message["role"], "content": message.get("content") or ""})
    return _plain(flat)


def answer_prompt(messages: Sequence[Message]) -> list[Message]:
    """Return the messages from which the model answers in words.

    Calls are left out, and the results stand under the question that they belong to.
    """
    flat: list[Message] = []
    for message in messages:
        text = text_of(message.get("content"))
        if message["role"] == "tool":
            _add_result(flat, _result(message, text))
        elif message["role"] == "assistant" and message.get("tool_calls"):
            continue
        else:
            content = text if message["role"] == "assistant" else message.get("content") or ""
            flat.append({"role": message["role"], "content": content})
    for message in flat:
        if message.get("results"):
            message["content"] = _followed(message["content"], "\n\n", _ANSWER_NOW)
    return _plain(flat)


def _list_tools(tools: Sequence[Tool]) -> str:
    """Return the list of tools with their parameters and descriptions."""
    lines = ["AVAILABLE TOOLS:"]
    for tool in tools:
        function = tool["function"]
        lines.append(f"- {function['name']}: {one_line(function.get('description'))}".rstrip(": "))
        parameters = function.get("parameters") or {}
        described = [
            _parameter(name, schema, name in (parameters.get("required") or ()))
            for name, schema in (parameters.get("properties") or {}).items()
        ]
        if described:
            lines.append(f"  Parameters: {'; '.join(described)}")
    return "\n".join(lines)


def text_of(content: Any) -> str:
    """Return the text of a message's content, whether it is a text or a list of blocks."""
    if isinstance(content, str):
        return content
    blocks = content or ()
    return "\n".join(block.get("text", "") for block in blocks if block.get("type") == "text")


def _split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    if messages and messages[0]["role"] == "system":
        return text_of(messages[0].get("content")), messages[1:]
    return "", messages


def _takes_one_text(tool: Tool) -> bool:
    parameters = tool["function"].get("parameters") or {}
    required = parameters.get("required") or list(parameters.get("properties") or {})
    schemas = [(parameters.get("properties") or {}).get(name) for name in required]
    return len(schemas) == 1 and isinstance(schemas[0], Mapping) and schemas[0].get("type") == "string"


def _result(message: Message, text: str) -> str:
    return f"Tool Result ({message.get('name') or 'tool'}): {text}"


def _add_result(flat: list[Message], result: str) -> None:
    """Add a result to the user's message before it, since many templates insist on taking turns."""
    last = flat[-1] if flat else {}
    if last.get("role") != "user":
        flat.append({"role": "user", "content": result, "results": True})
        return
    between = "\n" if last.get("results") else "\n\n"
    flat[-1] = {"role": "user", "content": _followed(last["content"], between, result), "results": True}


def _followed(content: Any, between: str, text: str) -> Any:
    """Return a content with more text behind it; images and other blocks stay."""
    if isinstance(content, str):
        return f"{content}{between}{text}"
    *others, last = content
    if last.get("type") == "text":
        return [*others, {**last, "text": f"{last['text']}{between}{text}"}]
    return [*content, {"type": "text", "text": text}]


def _plain(flat: Sequence[Message]) -> list[Message]:
    return [{"role": message["role"], "content": message["content"]} for message in flat]


def _line(name: str, arguments: str) -> str:
    """Write a call as the grammar does, so that the prompt equals what was generated."""
    with suppress(ValueError, RecursionError):  # a call that was broken is shown as it was
        arguments = json.dumps(json.loads(arguments or "{}"), ensure_ascii=False)
    return f'{MARKER} {{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'


def _parameter(name: str, schema: Any, required: bool) -> str:
    if not isinstance(schema, Mapping):
        return name
    text = f"{name} ({_kind(schema)}{'' if required else ', optional'})"
    description = one_line(schema.get("description"))
    return f"{text}: {description}" if description else text


def _kind(schema: Any) -> str:
    if not isinstance(schema, Mapping):  # true, which anything fits
        return "any"
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(member) for member in schema["anyOf"]))
    kind = schema.get("type", "any")
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"array of {_kind(schema['items'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def one_line(text: str | None) -> str:
    """Return the text with all white space made single blanks; null in a schema says nothing."""
    return " ".join((text or "").split())
