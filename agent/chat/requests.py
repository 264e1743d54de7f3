"""From LangChain to the wire: messages and tools as parts of a chat-completions request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from agent.chat.characters import whole
from agent.chat.content import check_parts, standard_parts
from agent.errors import ConfigurationError, UnsupportedInputError


def wire_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Convert LangChain messages to the wire form.

    Calls that could not be parsed stay visible to the model as calls, so that it can see what it did wrong.
    Reasoning goes back where it came from; which of it the model sees again is for its template to say.

    Raises:
        UnsupportedInputError: A content block is of a kind that no model on vLLM takes.
    """
    wired: list[dict[str, Any]] = []
    for message in messages:
        if simple := _simple(message):
            wired.append(simple)
            continue
        content, reasoning = standard_parts(message)
        plain = message if content is message.content else message.model_copy(update={"content": content})
        try:
            converted = convert_to_openai_messages([plain])
        except (ValueError, KeyError, TypeError) as error:
            msg = f"a message of type {message.type!r} has content that cannot be sent: {error}"
            raise UnsupportedInputError(msg) from error
        assert isinstance(converted, list)
        for wire in converted:
            check_parts(wire)
        if isinstance(message, AIMessage) and converted:
            _complete_answer(converted[0], message, reasoning)
        wired += converted
    sendable: list[dict[str, Any]] = whole(wired)  # no tokenizer takes half a character
    return sendable


_JSON = json.JSONEncoder(ensure_ascii=False)
_ROLES: Mapping[type[BaseMessage], str] = {
    HumanMessage: "user",
    AIMessage: "assistant",
    SystemMessage: "system",
    ToolMessage: "tool",
}


def _simple(message: BaseMessage) -> dict[str, Any] | None:
    """The form of a message that has nothing but a text and calls; ``None`` if it has more.

    The same as LangChain's own conversion gives, in a small part of its time: a long conversation is
    converted anew for each call of the model.
    """
    role = _ROLES.get(type(message))
    plain = isinstance(message.content, str) and not message.additional_kwargs
    if role is None or not plain:
        return None
    wire: dict[str, Any] = {"role": role, "content": message.content}
    if message.name:
        wire["name"] = message.name
    if role == "tool":
        wire["tool_call_id"] = cast("ToolMessage", message).tool_call_id
    elif role == "assistant":
        message = cast("AIMessage", message)
        if message.invalid_tool_calls:
            return None
        if message.tool_calls:
            wire["tool_calls"] = [
                {
                    "type": "function",
                    "id": call["id"],
                    "function": {
                        "name": call["name"],
                        "arguments": _arguments(call),
                    },
                }
                for call in message.tool_calls
            ]
    return wire


def _arguments(call: Mapping[str, Any]) -> str:
    try:
        return _JSON.encode(call["args"])
    except (TypeError, ValueError) as error:
        msg = f"the arguments of a call of {call['name']!r} are no JSON ({error}): {call['args']!r}"
        raise UnsupportedInputError(msg) from error
    except RecursionError as error:
        msg = f"the arguments of a call of {call['name']!r} are nested too deeply"
        raise UnsupportedInputError(msg) from error


def _complete_answer(wire: dict[str, Any], message: AIMessage, reasoning: str) -> None:
    """Add what LangChain's own conversion leaves out of a model's answer."""
    if reasoning:
        wire["reasoning"] = reasoning
    if not message.invalid_tool_calls:
        return
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


def wire_tools(tools: Sequence[Any], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Convert functions, LangChain tools, Pydantic classes and JSON schemas to the wire form.

    A tool that is given twice is sent once.

    Args:
        tools: The tools.
        strict: OpenAI's mark on each tool that its arguments must fit its schema; here they do anyway.

    Raises:
        ConfigurationError: Something in it is no tool, or two different tools have one name.
    """
    if isinstance(tools, str | Mapping | BaseModel) or not isinstance(tools, Iterable):
        msg = f"tools must be a list of tools, got {tools!r}"
        raise ConfigurationError(msg)
    wired: dict[str, dict[str, Any]] = {}
    for tool in tools:
        wire = _wire_tool(tool, strict)
        name = wire["function"]["name"]
        if _untitled(wired.setdefault(name, wire)) != _untitled(wire):
            msg = f"two tools are called {name!r}; rename one"
            raise ConfigurationError(msg)
    return list(wired.values())


def _wire_tool(tool: Any, strict: bool | None) -> dict[str, Any]:
    try:
        wire = convert_to_openai_tool(tool, strict=strict)
        function = wire["function"]
        name, parameters = function["name"], function.get("parameters") or {}
    except Exception as error:  # Pydantic and LangChain raise many kinds over what is no tool
        msg = (
            f"{tool!r} is no tool: give a function, a LangChain tool, a Pydantic class, or a JSON schema "
            f"with a title or in OpenAI's form ({type(error).__name__}: {error})"
        )
        raise ConfigurationError(msg) from error
    problem = ""
    if not isinstance(name, str) or not name.strip():
        problem = f"its name is {name!r}"
    elif not isinstance(parameters, Mapping):
        problem = f"its parameters are {parameters!r}, and no JSON schema"
    elif not isinstance(fields := parameters.get("properties") or {}, Mapping):
        problem = f"the properties of its parameters are {fields!r}"
    if problem:
        msg = f"{tool!r} is no tool: {problem}"
        raise ConfigurationError(msg)
    return wire


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
        inner = choice.get("function", choice)
        name = inner.get("name") if isinstance(inner, Mapping) else None
    if name not in names:
        msg = f"tool_choice {choice!r} names no bound tool; bound are: {', '.join(names) or 'none'}"
        raise ConfigurationError(msg)
    return {"type": "function", "function": {"name": name}}
