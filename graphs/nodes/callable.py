"""How functions become nodes, and ways between them: the one place that knows LangGraph's own form of it.

``RunnableLambda`` would do, but it traces each call as a run of its own inside the node's, and reads the
functions' signatures anew every time: together a sixth of what a step costs. ``RunnableCallable`` is what
LangGraph makes of a function itself. It is internal to LangGraph, and has a contract test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable
from langgraph._internal._runnable import RunnableCallable


def node(
    run: Callable[..., Any], arun: Callable[..., Awaitable[Any]] | None = None, *, name: str
) -> Runnable[Any, Any]:
    """A node for ``StateGraph.add_node``.

    Args:
        run: One step, synchronously: takes the state (or what the task is sent), and may take ``config``.
        arun: The same asynchronously; without one, ``run`` serves both, and must not wait for anything.
        name: Of the node.
    """
    return RunnableCallable(run, arun, name=name, trace=False)


def way(choose: Callable[[Any], Any]) -> Runnable[Any, Any]:
    """What chooses the next node, for ``StateGraph.add_conditional_edges``; its state is as annotated.

    Args:
        choose: Takes the state; must not wait for anything.
    """
    return node(choose, name=choose.__name__)
