"""What graphs and observer take from inside LangGraph; fails loudly after an upgrade that changes it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph._internal._runnable import RunnableCallable
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

from graphs.compiling import compiled
from graphs.nodes.callable import node, way


def test_runnable_callable_takes_what_a_node_gives_it() -> None:
    assert {"func", "afunc", "name", "trace"} <= inspect.signature(RunnableCallable).parameters.keys()


def test_a_node_runs_both_ways_with_its_config() -> None:
    def run(state: Any, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [("ai", f"sync {config['configurable']['thread_id']}")]}

    async def arun(state: Any, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [("ai", f"async {config['configurable']['thread_id']}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("one", node(run, arun, name="one"))
    builder.add_edge(START, "one")
    graph = builder.compile()
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    assert graph.invoke({"messages": []}, config)["messages"][-1].content == "sync t"
    assert asyncio.run(graph.ainvoke({"messages": []}, config))["messages"][-1].content == "async t"


def test_a_node_is_one_run_that_is_tagged_as_a_step_and_a_way_is_none() -> None:
    class Seen(BaseCallbackHandler):
        def __init__(self) -> None:
            self.runs: list[tuple[str, list[str]]] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **given: Any) -> None:
            self.runs.append((given["name"], given["tags"]))

    def onward(state: MessagesState) -> str:
        assert [message.text for message in state["messages"]] == ["said"]
        return "further"

    builder = StateGraph(MessagesState)
    builder.add_node("one", node(lambda state: {"messages": [("ai", "said")]}, name="one"))
    builder.add_edge(START, "one")
    builder.add_conditional_edges("one", way(onward), {"further": END})
    seen = Seen()
    graph = builder.compile(name="graph")
    for run in (graph.invoke, lambda *given: asyncio.run(graph.ainvoke(*given))):
        run({"messages": []}, {"callbacks": [seen]})
    assert seen.runs == [("graph", []), ("one", ["graph:step:1"])] * 2


def test_many_tasks_of_a_synchronous_run_go_on_at_once() -> None:
    together = threading.Barrier(20, timeout=60)

    def wait(state: Any) -> dict[str, Any]:
        together.wait()
        return {"messages": []}

    builder = StateGraph(MessagesState)
    builder.add_node("wait", node(wait, name="wait"))
    builder.add_conditional_edges(START, lambda _: [Send("wait", {}) for _ in range(20)], ["wait"])
    builder.add_edge("wait", END)
    compiled(builder, checkpointer=None, name="graph").invoke({"messages": []})
