"""Streams: tokens of the model, events of the tools, in order and as they happen."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from graph_doubles import CountingModel, ScriptedModel, calls, malformed
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_stream_writer

from graphs import build_react_graph
from tools import tool

SETTINGS: Any = {"configurable": {"thread_id": "t"}}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def report(step: str) -> str:
    """Report progress while it runs."""
    get_stream_writer()({"type": "my_progress", "step": step})
    return get_config()["configurable"]["thread_id"]


@tool
def report_from_a_thread(step: str) -> str:
    """Report progress while it runs, synchronously."""
    get_stream_writer()({"type": "my_progress", "step": step})
    return get_config()["configurable"]["thread_id"]


def build(script: list[Any], **options: Any) -> Any:
    return build_react_graph(
        model=ScriptedModel(script=script),
        tools=[add, report, report_from_a_thread],
        checkpointer=InMemorySaver(),
        **options,
    )


@pytest.fixture(params=["sync", "async"])
def collect(request: pytest.FixtureRequest) -> Any:
    def stream(graph: Any, question: Any, mode: Any) -> list[Any]:
        given = {"messages": question}
        if request.param == "sync":
            return list(graph.stream(given, SETTINGS, stream_mode=mode))

        async def gather() -> list[Any]:
            return [item async for item in graph.astream(given, SETTINGS, stream_mode=mode)]

        return asyncio.run(gather())

    return stream


def test_the_model_is_streamed_token_by_token(collect):
    graph = build([calls(("add", {"a": 1, "b": 2}), text="let me add"), "it is 3"])
    items = collect(graph, "1+2?", "messages")
    words = [m.content for m, _ in items if isinstance(m, AIMessageChunk) and m.content]
    assert words == ["let", " me", " add", "it", " is", " 3"]
    assert [m.text for m, _ in items if isinstance(m, ToolMessage)] == ["3"]
    assert {about["langgraph_node"] for _, about in items} == {"model", "tools"}
    ids = {m.id for m, _ in items if isinstance(m, AIMessageChunk)}
    state = graph.get_state(SETTINGS).values["messages"]
    assert ids == {m.id for m in state if isinstance(m, AIMessage)}, "chunks and messages share ids"


def test_tool_calls_are_streamed_as_deltas(collect):
    graph = build([calls(("add", {"a": 1, "b": 2})), "3"])
    chunks = [m for m, _ in collect(graph, "1+2?", "messages") if isinstance(m, AIMessageChunk)]
    (delta,) = [c for chunk in chunks for c in chunk.tool_call_chunks]
    assert (delta["name"], delta["args"]) == ("add", '{"a": 1, "b": 2}')


def test_nothing_is_streamed_twice(collect):
    graph = build([malformed(), "well then"])
    items = collect(graph, "go", "messages")
    assert sum(isinstance(m, AIMessage) and not isinstance(m, AIMessageChunk) for m, _ in items) == 0
    (complaint,) = [m for m, _ in items if isinstance(m, ToolMessage)]
    assert "could not be read" in complaint.text


def test_tools_tell_when_they_start_and_end(collect):
    graph = build([calls(("add", {"a": 1, "b": 2}), ("nothing", {})), "3"])
    events = collect(graph, "go", "custom")
    by_id = {call: [e for e in events if e["id"] == call] for call in ("c0", "c1")}
    started, finished = by_id["c0"]
    assert started == {"type": "tool_started", "id": "c0", "name": "add", "args": {"a": 1, "b": 2}}
    assert finished["type"] == "tool_finished"
    assert (finished["status"], finished["replayed"]) == ("success", False)
    assert 0 <= finished["seconds"] < 30
    assert by_id["c1"][1]["status"] == "error"


@pytest.mark.parametrize("name", ["report", "report_from_a_thread"])
def test_tools_can_write_to_the_stream_and_read_the_config(collect, name):
    graph = build([calls((name, {"step": "half way"})), "ok"])
    events = collect(graph, "go", "custom")
    assert [e["type"] for e in events] == ["tool_started", "my_progress", "tool_finished"]
    assert graph.get_state(SETTINGS).values["messages"][2].text == "t"


def test_events_arrive_while_the_tool_is_still_running():
    go_on = threading.Event()

    @tool
    def wait() -> str:
        """Wait until the reader has seen the start."""
        return "seen" if go_on.wait(timeout=60) else "nobody was told"

    graph = build_react_graph(model=ScriptedModel(script=[calls(("wait", {})), "ok"]), tools=[wait])
    last = None
    for mode, item in graph.stream({"messages": "go"}, stream_mode=["custom", "values"]):
        if mode == "custom" and item["type"] == "tool_started":
            go_on.set()
        last = item
    assert last["messages"][2].text == "seen"


def test_the_end_of_a_turn_by_a_limit_is_told(collect):
    graph = build([lambda m: calls(("add", {"a": len(m), "b": 0}), ids=[f"n{len(m)}"])], max_steps=1)
    events = collect(graph, "go", "custom")
    assert events[-1] == {"type": "turn_closing", "reason": "max_steps"}


def test_repairs_are_told(collect):
    graph = build(["ok"])
    open_call = calls(("add", {"a": 1, "b": 2}))
    events = collect(graph, [HumanMessage("go"), open_call, HumanMessage("well?")], "custom")
    assert events == [{"type": "calls_repaired", "ids": ["c0"]}]


def test_trimming_is_told(collect):
    graph = build_react_graph(
        model=CountingModel(script=["ok"]), checkpointer=InMemorySaver(), max_context_tokens=40
    )
    events = collect(graph, [HumanMessage("word " * 60), AIMessage("yes"), HumanMessage("and?")], "custom")
    assert events == [{"type": "context_trimmed", "dropped": 2, "shortened": 0}]
