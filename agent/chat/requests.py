"""From LangChain to the wire: messages, tools and sampling arguments as a chat-completions request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent.errors import ConfigurationError

# The sampling arguments that a call may override, by our name, with their name on the wire.
WIRE_NAMES: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "max_tokens",
    "n": "n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop",
    "ignore_eos": "ignore_eos",
    "parallel_tool_calls": "parallel_tool_calls",
    "response_format": "response_format",
    "structured_outputs": "structured_outputs",
    "chat_template_kwargs": "chat_template_kwargs",
}


def wire_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Convert LangChain messages to the wire form.

    Calls that could not be parsed stay visible to the model as calls, so that it can see what it did wrong.
    """
    wired = []
    for message in messages:
        wire = convert_to_openai_messages(message)
        assert isinstance(wire, dict)
        if isinstance(message, AIMessage) and message.invalid_tool_calls:
            broken = [
                {
                    "type": "function",
                    "id": call["id"],
                    "function": {
                        "name": call["name"] or "unknown",
                        # Templates parse this string: it must be JSON, and the text must not be lost.
                        "arguments": json.dumps({"invalid_json": call["args"]}),
                    },
                }
                for call in message.invalid_tool_calls
            ]
            wire["tool_calls"] = [*wire.get("tool_calls", ()), *broken]
        wired.append(wire)
    return wired


def wire_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Convert functions, LangChain tools, Pydantic classes and JSON schemas to the wire form.

    A tool that is given twice is sent once.

    Raises:
        ConfigurationError: Two different tools have one name.
    """
    wired: dict[str, dict[str, Any]] = {}
    for tool in tools:
        wire = convert_to_openai_tool(tool)
        name = wire["function"]["name"]
        if _untitled(wired.setdefault(name, wire)) != _untitled(wire):
            msg = f"two tools are called {name!r}; rename one"
            raise ConfigurationError(msg)
    return list(wired.values())


def _untitled(schema: Any) -> Any:
    """Leave out the titles that Pydantic gives to every field: they repeat the names."""
    if isinstance(schema, dict):
        return {k: _untitled(v) for k, v in schema.items() if k != "title" or not isinstance(v, str)}
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def wire_tool_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Any:
    """Convert LangChain's ``tool_choice`` to the wire form.

    Args:
        choice: ``"auto"``, ``"none"``, ``"required"`` or ``"any"``, True (as "required"), False (as "none"),
            None (as "auto"), a tool's name, or ``{"type": "function", "function": {"name": …}}``.
        tools: The bound tools in wire form.

    Raises:
        ConfigurationError: No tool has that name.
    """
    if choice is None:
        return "auto"
    if isinstance(choice, bool):
        return "required" if choice else "none"
    names = [tool["function"]["name"] for tool in tools]
    if choice in ("any", "required"):
        return "required"
    if choice in ("auto", "none"):
        return choice
    name = choice
    if isinstance(choice, Mapping):
        name = choice.get("function", choice).get("name")
    if name not in names:
        msg = f"tool_choice {choice!r} names no bound tool; bound are: {', '.join(names) or 'none'}"
        raise ConfigurationError(msg)
    return {"type": "function", "function": {"name": name}}


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert sampling arguments to the wire form; those that are None are left to the engine.

    Raises:
        ConfigurationError: An argument is unknown.
    """
    wire: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name == "logprobs":
            wire["logprobs"] = True
            wire["top_logprobs"] = int(value)
        elif name in WIRE_NAMES:
            wire[WIRE_NAMES[name]] = value
        else:
            known = ", ".join(sorted([*WIRE_NAMES, "logprobs"]))
            msg = f"unknown argument {name!r} (value {value!r}); a call takes: {known}"
            raise ConfigurationError(msg)
    return wire
