"""The node that gives a task to another graph and takes its answer.

The other graph runs as a subgraph: in a conversation of its own under the same thread, so that its steps are
stored, its interrupts reach the person, and a run that was cut off goes on inside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from graphs.nodes.callable import node

Graph = CompiledStateGraph[Any, Any, Any, Any]
State = TypeVar("State")
Update = Mapping[str, Any]


def worker_node(
    graph: Graph,
    *,
    name: str,
    begin: Callable[[State], str | Update],
    end: Callable[[State, str], Update],
) -> Runnable[State, Update]:
    """A node that runs ``graph`` on one task.

    Plain functions that hold ``graph``, because that is where LangGraph looks for subgraphs when it draws a
    graph and when it collects the states of a thread.

    Args:
        graph: Takes ``messages`` and gives ``messages``.
        name: The node's name.
        begin: The task in words, from what the node is sent; or what the node writes if there is none. It may
            ask the model how long a task may be, which may wait for a server: in coroutines it is called on a
            thread.
        end: What the node writes, from what it was sent and the last answer of ``graph``.
    """

    def run(state: State, config: RunnableConfig) -> Update:
        task = begin(state)
        return end(state, _answer(graph.invoke(_asked(task), config))) if isinstance(task, str) else task

    async def arun(state: State, config: RunnableConfig) -> Update:
        task = await asyncio.to_thread(begin, state)
        if not isinstance(task, str):
            return task
        return end(state, _answer(await graph.ainvoke(_asked(task), config)))

    return node(run, arun, name=name)


def _asked(task: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(task)]}


def _answer(state: Mapping[str, Any]) -> str:
    answers = [message for message in state["messages"] if isinstance(message, AIMessage)]
    return answers[-1].text.strip() if answers else ""
