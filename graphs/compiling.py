"""The last step of building a graph, the same for all of them."""

from __future__ import annotations

from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

_TASKS_AT_ONCE = 64
"""Without a number, a graph that runs synchronously gets four threads more than the machine has cores
(``ThreadPoolExecutor``), and further tool calls of one answer wait for the first, though most of them only
wait for something else. A tool that must not run so often at once has ``ToolPolicy(concurrency=…)``."""


def compiled(
    builder: StateGraph[Any, Any, Any, Any], *, checkpointer: Checkpointer, name: str
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile a graph.

    Args:
        builder: With its nodes and edges.
        checkpointer: Keeps its threads; ``None`` for none of its own.
        name: Of the graph, in traces and in LangGraph Studio.
    """
    graph = builder.compile(checkpointer=checkpointer, name=name)
    return graph.with_config({"max_concurrency": _TASKS_AT_ONCE})
