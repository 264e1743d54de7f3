"""What tools need of LangGraph while they run: the stream writer, interrupts, stopping a run."""

from typing import Any, TypedDict

import pytest
from langchain_core.messages import ToolCall
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from tools import acall, call, tool


class State(TypedDict, total=False):
    answer: Any


@tool
def report(town: str) -> str:
    """Report."""
    get_stream_writer()({"working on": town})
    return town


@tool
async def areport(town: str) -> str:
    """Report."""
    get_stream_writer()({"working on": town})
    return town


@tool
def ask() -> str:
    """Ask."""
    return f"they said {interrupt('how?')}"


def graph_of(of: Any, **arguments: Any) -> Any:
    request = ToolCall(name=of.name, args=arguments, id="1", type="tool_call")

    def node(state: State) -> State:
        outcome = call(of, request, propagate=(GraphBubbleUp,))
        return {"answer": outcome.message.content if outcome.message else None}

    async def anode(state: State) -> State:
        outcome = await acall(of, request, propagate=(GraphBubbleUp,))
        return {"answer": outcome.message.content if outcome.message else None}

    graph = StateGraph(State)
    from langchain_core.runnables import RunnableLambda

    graph.add_node("tool", RunnableLambda(node, anode))
    graph.add_edge(START, "tool")
    graph.add_edge("tool", END)
    return graph.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("of", [report, areport], ids=lambda of: of.name)
async def test_tools_may_report_progress(of):
    graph = graph_of(of, town="Rome")
    config = {"configurable": {"thread_id": "1"}}
    assert [part async for part in graph.astream({}, config, stream_mode="custom")] == [
        {"working on": "Rome"}
    ]
    assert list(graph.stream({}, config, stream_mode="custom")) == [{"working on": "Rome"}]


async def test_a_tool_may_interrupt_and_be_resumed():
    graph = graph_of(ask)
    config = {"configurable": {"thread_id": "1"}}
    assert (await graph.ainvoke({}, config))["__interrupt__"][0].value == "how?"
    assert (await graph.ainvoke(Command(resume="like this"), config))["answer"] == "they said like this"


def test_a_tool_may_interrupt_and_be_resumed_from_sync_code():
    graph = graph_of(ask)
    config = {"configurable": {"thread_id": "1"}}
    assert graph.invoke({}, config)["__interrupt__"][0].value == "how?"
    assert graph.invoke(Command(resume="like this"), config)["answer"] == "they said like this"
