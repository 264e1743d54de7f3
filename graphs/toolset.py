"""Tools as a graph uses them: all of one kind, no name twice, in an order that never changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langchain_core.tools import BaseTool

from tools.decorator import tool as as_tool
from tools.errors import ToolRegistrationError
from tools.reflection import hide_config


def prepare_tools(tools: Iterable[BaseTool | Callable[..., Any]]) -> tuple[BaseTool, ...]:
    """Sort tools by name; plain functions become tools.

    Sorted, because tools stand at the start of a prompt: found in another order, they would cost the engine
    its prefix cache for every conversation.

    Raises:
        ToolRegistrationError: Two tools have one name, or a function cannot be a tool.
    """
    by_name: dict[str, BaseTool] = {}
    for item in tools:
        made = item if isinstance(item, BaseTool) else as_tool(item)
        hide_config(made)
        other = by_name.setdefault(made.name, made)
        if other is not made:
            raise ToolRegistrationError(
                f"two tools are called {made.name!r}: rename one of them, a model calls tools by name"
            )
    return tuple(by_name[name] for name in sorted(by_name))
