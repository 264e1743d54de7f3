"""Which graphs there are: what the command line and ``langgraph.json`` choose from by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from graphs.approval import build_approval_graph
from graphs.plan_execute import build_plan_execute_graph
from graphs.react import build_react_graph
from graphs.retrieval import build_retrieval_graph
from graphs.supervisor import build_supervisor_graph


class UnknownGraphError(LookupError):
    """No graph has that name; the message names those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class GraphKind:
    """One graph that can be built."""

    name: str
    description: str
    """One line for people who choose."""

    build: Callable[..., CompiledStateGraph[Any, Any, Any, Any]]
    """Takes ``model``, ``tools`` and ``checkpointer`` as keywords, and options of its own."""

    needs_documents: bool = False
    """Whether it runs only with a ``retriever``; it can be drawn without."""


GRAPHS: Mapping[str, GraphKind] = MappingProxyType(
    {
        "react": GraphKind(
            "react", "A model that calls tools, several at once, until it can answer.", build_react_graph
        ),
        "approval": GraphKind(
            "approval",
            "The same, but each tool call waits until a person approves, edits, rejects or answers it.",
            build_approval_graph,
        ),
        "plan_execute": GraphKind(
            "plan_execute",
            "A model that makes a plan, does one step after the other, plans again, and answers.",
            build_plan_execute_graph,
        ),
        "retrieval": GraphKind(
            "retrieval",
            "Answers from documents: retrieve, rerank, grade, rewrite the query, answer with citations.",
            build_retrieval_graph,
            needs_documents=True,
        ),
        "supervisor": GraphKind(
            "supervisor",
            "A model that hands tasks to workers, each of them a graph of its own.",
            build_supervisor_graph,
        ),
    }
)
"""Every graph of this package, by name."""


def find_graph(name: str) -> GraphKind:
    """The graph called ``name``.

    Raises:
        UnknownGraphError: There is none.
    """
    try:
        return GRAPHS[name]
    except KeyError:
        close = difflib.get_close_matches(name, GRAPHS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UnknownGraphError(
            f"no graph is called {name!r}{hint} (there are: {', '.join(GRAPHS)})"
        ) from None
