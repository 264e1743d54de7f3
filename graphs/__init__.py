"""LangGraph graphs of small nodes: model, tools and saver are passed in, LangGraph runs them.

::

    from graphs import build_react_graph

    graph = build_react_graph(model=model, tools=[calculator], checkpointer=saver)
    graph.invoke({"messages": [("user", "What is 15 * 23?")]}, {"configurable": {"thread_id": "1"}})

Names are loaded when they are first used: importing this package imports neither LangGraph nor Pillow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphs.approval import build_approval_graph
    from graphs.decisions import Approve, Edit, Reject, Respond, decide, waiting_calls
    from graphs.drawing import draw_mermaid, draw_png, draw_svg
    from graphs.plan_execute import build_plan_execute_graph
    from graphs.react import build_react_graph
    from graphs.registry import GRAPHS, find_graph
    from graphs.retrieval import build_retrieval_graph
    from graphs.supervisor import Worker, build_supervisor_graph

__all__ = [  # noqa: RUF022 (sorted as Python sorts, which the tests ask for; ruff puts capitals first)
    "Approve",
    "Edit",
    "GRAPHS",
    "Reject",
    "Respond",
    "Worker",
    "build_approval_graph",
    "build_plan_execute_graph",
    "build_react_graph",
    "build_retrieval_graph",
    "build_supervisor_graph",
    "decide",
    "draw_mermaid",
    "draw_png",
    "draw_svg",
    "find_graph",
    "waiting_calls",
]

_HOMES = {
    "GRAPHS": "graphs.registry",
    "Worker": "graphs.supervisor",
    "build_approval_graph": "graphs.approval",
    "build_plan_execute_graph": "graphs.plan_execute",
    "build_react_graph": "graphs.react",
    "build_retrieval_graph": "graphs.retrieval",
    "build_supervisor_graph": "graphs.supervisor",
    "find_graph": "graphs.registry",
    **dict.fromkeys(("Approve", "Edit", "Reject", "Respond", "decide", "waiting_calls"), "graphs.decisions"),
    **dict.fromkeys(("draw_mermaid", "draw_png", "draw_svg"), "graphs.drawing"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
