"""Every graph on the embedded model: streamed, interrupted, cut off and resumed on the real database.

What a model of 135M parameters says is not judged here; what the graphs make of it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.checkpoint.memory import InMemorySaver

from agent import ChatVLLM, open_checkpointer
from agent.errors import RequestError
from benchmarks.prefix import cache_usage, converse, questions
from graphs import (
    GRAPHS,
    Approve,
    build_approval_graph,
    build_plan_execute_graph,
    build_react_graph,
    build_retrieval_graph,
    build_supervisor_graph,
    decide,
    draw_svg,
    waiting_calls,
)
from tools import default_registry, tool

pytestmark = pytest.mark.engine

QUESTION = "What is 15 * 23?"


class Shelf(BaseRetriever):
    """Two documents, always."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [
            Document("15 * 23 is 345.", metadata={"source": "sums.md"}),
            Document("Cats sleep for most of the day.", metadata={"source": "cats.md"}),
        ]


@dataclass(frozen=True)
class Case:
    """How a graph is built, where it is stopped, and what it tells on its way."""

    build: Callable[..., Any]
    stop_after: str
    """A node after which the run is stopped, as by a breakpoint."""
    events: set[str]


CASES = {
    "react": Case(build_react_graph, "model", {"tool_started", "tool_finished"}),
    "approval": Case(build_approval_graph, "tools", {"tool_started", "tool_finished", "call_decided"}),
    "plan_execute": Case(
        lambda **given: build_plan_execute_graph(max_plan_steps=1, **given),
        "plan",
        {"planned", "step_started", "step_finished"},
    ),
    "supervisor": Case(build_supervisor_graph, "model", {"worker_started", "worker_finished"}),
    "retrieval": Case(
        lambda **given: build_retrieval_graph(retriever=Shelf(), **given), "retrieve", {"retrieved", "graded"}
    ),
}


@pytest.fixture(scope="module")
def model(real_model: ChatVLLM) -> Any:
    """The shared engine, with answers short enough for a test."""
    with ChatVLLM(temperature=0.0, max_tokens=48) as short:
        yield short


def calculator() -> Any:
    return next(each for each in default_registry() if each.name == "calculator")


class Died(BaseException):
    """Stands for a process that dies."""


class Run:
    """One thread of one graph, and what was streamed of it; each step opens the database anew."""

    def __init__(self, case: Case, model: ChatVLLM, file: Path) -> None:
        self.case, self.model, self.file = case, model, file
        self.words = ""
        self.events: list[str] = []
        self.settings: Any = {"configurable": {"thread_id": "t"}}

    def go(self, given: Any, *, die: bool = False, **options: Any) -> Any:
        """Run until the graph stops by itself, or dies when it stores its next step."""
        with open_checkpointer(self.file) as saver:
            graph = self.case.build(model=self.model, tools=[calculator()], checkpointer=saver)
            if callable(given):
                given = given(graph.get_state(self.settings))
            if die:
                put = saver.put

                def put_and_die(*args: Any) -> Any:
                    put(*args)
                    raise Died

                saver.put = put_and_die  # type: ignore[method-assign]
            modes = ["messages", "custom"]
            try:
                for _, mode, payload in graph.stream(
                    given, self.settings, stream_mode=modes, subgraphs=True, durability="sync", **options
                ):
                    if mode == "custom":
                        self.events.append(payload["type"])
                    elif isinstance(payload[0], AIMessage):
                        self.words += payload[0].text
            except Died:
                assert die
            state = graph.get_state(self.settings)
        return state


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_goes_through_interrupt_crash_and_resume(name: str, model: ChatVLLM, tmp_path: Path) -> None:
    case = CASES[name]
    run = Run(case, model, tmp_path / "threads.sqlite")
    state = run.go({"messages": [("user", QUESTION)]}, interrupt_after=[case.stop_after])
    assert state.next, "it is to stop on its way"
    if name == "approval":
        assert [call["name"] for call in waiting_calls(state)] == ["calculator"]
        state = run.go(
            lambda waiting: decide({call["id"]: Approve() for call in waiting_calls(waiting)}, to=waiting),
            interrupt_after=[case.stop_after],
        )
    state = run.go(None, die=True)
    for _ in range(10):
        if not state.tasks:
            break
        state = run.go(None)
    assert not state.next
    messages = state.values["messages"]
    assert isinstance(messages[-1], AIMessage)
    assert messages[-1].text.strip()
    assert messages[-1].text in run.words, "the answer was streamed"
    assert case.events <= set(run.events)
    made = [call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    assert made == [m.tool_call_id for m in messages if isinstance(m, ToolMessage)]


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_draws_itself(name: str, model: ChatVLLM) -> None:
    case = CASES[name]
    graph = case.build(model=model, tools=[calculator()])
    drawn = draw_svg(graph)
    assert drawn.startswith("<svg")
    for node in graph.nodes:
        if not node.startswith("__"):
            assert node in drawn


def test_the_prefix_cache_serves_a_conversation_with_tools(real_model: ChatVLLM) -> None:
    tools = [each for each in default_registry() if each.name in ("calculator", "current_time")]
    short = real_model.model_copy(update={"max_tokens": 32})  # enough for a call
    graph = build_react_graph(model=short, tools=tools, checkpointer=InMemorySaver())
    messages = converse(graph, questions(10, start=13), thread="prefix")
    answers = [message for message in messages if isinstance(message, AIMessage)]
    assert sum(bool(answer.tool_calls) for answer in answers) >= 8, "it is to be a conversation with tools"
    usage = cache_usage(messages)
    assert usage.could > 3000
    assert usage.share >= 0.9, usage


@pytest.mark.parametrize("overflow", ["trim", "summarise"])
def test_a_conversation_that_is_too_long_is_cut_by_real_tokens(model: ChatVLLM, overflow: Any) -> None:
    limit = 420

    @tool
    def look_up(word: str) -> str:
        """Look a word up in a dictionary."""
        return f"{word}: " + "a word like many others, " * 6

    graph = build_react_graph(
        model=model,
        tools=[look_up],
        checkpointer=InMemorySaver(),
        max_context_tokens=limit,
        overflow=overflow,
    )
    thread: Any = {"configurable": {"thread_id": "long"}}
    events: list[str] = []
    for word in ("apple", "bread", "cedar"):
        asked = {"messages": [("user", f"Look up the word {word}.")]}
        events += [each["type"] for each in graph.stream(asked, thread, stream_mode="custom")]
    assert ("context_summarised" if overflow == "summarise" else "context_trimmed") in events
    state = graph.get_state(thread).values
    sizes = [m.usage_metadata["input_tokens"] for m in state["messages"] if isinstance(m, AIMessage)]
    assert max(sizes) <= limit
    assert len([m for m in state["messages"] if isinstance(m, HumanMessage)]) == 3, (
        "the state keeps everything"
    )
    if overflow == "summarise":
        assert state["summary"]["text"]


def test_a_conversation_longer_than_the_model_is_cut_to_its_own_limit(model: ChatVLLM) -> None:
    """The model's own limit, 8192 tokens, by its profile alone."""
    assert model.profile is not None
    limit = model.profile["max_input_tokens"]
    history: list[Any] = []
    for number in range(40):
        history += [
            HumanMessage(f"Story {number}? " + "so it was, " * 70),
            AIMessage("And so it ended. " * 10),
        ]
    with pytest.raises(RequestError, match="8192"):
        model.get_num_tokens_from_messages(history)  # the engine does not even count what is too long
    graph = build_react_graph(model=model)
    state = graph.invoke({"messages": [*history, HumanMessage("Say yes.")]})
    answer = state["messages"][-1]
    assert limit / 3 < answer.usage_metadata["input_tokens"] <= limit
    assert answer.text
