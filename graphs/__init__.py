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
    from graphs.drawing import draw_mermaid, draw_png, draw_svg
    from graphs.react import build_react_graph
    from graphs.registry import GRAPHS, find_graph

__all__ = ["GRAPHS", "build_react_graph", "draw_mermaid", "draw_png", "draw_svg", "find_graph"]

_HOMES = {
    "GRAPHS": "graphs.registry",
    "build_react_graph": "graphs.react",
    "draw_mermaid": "graphs.drawing",
    "draw_png": "graphs.drawing",
    "draw_svg": "graphs.drawing",
    "find_graph": "graphs.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
