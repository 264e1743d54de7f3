"""A conversation that is too long is summarised: whole turns, once, and only where it happened."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from graph_doubles import CountingModel, calls
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from graphs import build_react_graph, build_retrieval_graph
from graphs.summary import Summary, transcript, with_summary

SETTINGS: Any = {"configurable": {"thread_id": "t"}}


def reply(messages: list[Any]) -> Any:
    """A summary if one is asked for, else a short answer."""
    last = messages[-1].text
    if "Summarise this" in last:
        return f"summary of {last.count('User:')} questions"
    return f"answer to {last.split()[-1]} " + "a " * 20


def graph_of(**options: Any) -> tuple[Any, CountingModel]:
    model = CountingModel(script=[reply])
    options = {"checkpointer": InMemorySaver(), "overflow": "summarise", "max_context_tokens": 160, **options}
    return build_react_graph(model=model, **options), model


def talk(run: Any, graph: Any, turns: range) -> Any:
    for number in turns:
        state = run(graph, "q " * 10 + f"question-{number}")
    return state


def summaries(model: CountingModel) -> list[Any]:
    return [messages for messages in model.requests if "Summarise this" in messages[-1].text]


def test_old_turns_are_summarised_once_and_the_state_keeps_everything(run):
    graph, model = graph_of(system_prompt="Be brief.")
    state = talk(run, graph, range(12))
    assert len(state["messages"]) == 24
    assert 2 <= len(summaries(model)) <= 5, "a summary at every turn would cost a call and the prefix cache"
    for messages in model.requests:
        assert model.get_num_tokens_from_messages(messages) <= 160
    last = model.requests[-1]
    assert last[0].text.startswith("Be brief.\n\nEarlier in this conversation: summary of")
    assert sum(isinstance(message, SystemMessage) for message in last) == 1
    assert isinstance(last[1], HumanMessage)
    # The second summary takes the first one in.
    assert "What came before:\nsummary of" in summaries(model)[1][-1].text


class Undecided(CountingModel):
    """Takes forms, and fills in none."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def test_the_retrieval_graph_keeps_its_summary(run):
    model = Undecided(script=[reply])
    graph = build_retrieval_graph(
        model=model,
        retriever=RunnableLambda(lambda _: []),
        checkpointer=InMemorySaver(),
        max_rewrites=0,
        max_context_tokens=160,
        overflow="summarise",
    )
    talk(run, graph, range(12))
    assert 1 <= len(summaries(model)) <= 5
    assert graph.get_state(SETTINGS).values["summary"]["text"].startswith("summary of")


def test_the_beginning_of_the_request_stays_the_same_between_summaries(run):
    graph, model = graph_of()
    talk(run, graph, range(12))
    heads = [m[0].text for m in model.requests if "Summarise this" not in m[-1].text]
    changes = sum(a != b for a, b in itertools.pairwise(heads))
    assert changes <= len(summaries(model))


def test_a_fork_before_the_summary_does_not_know_of_it(run):
    graph, model = graph_of()
    talk(run, graph, range(12))
    early = next(s for s in graph.get_state_history(SETTINGS) if len(s.values.get("messages", ())) == 4)
    fork = graph.update_state(early.config, {"messages": [HumanMessage("question-x")]}, as_node="__start__")
    graph.invoke(None, fork)
    assert "Earlier in this conversation" not in " ".join(m.text for m in model.requests[-1])


def test_a_summary_of_messages_that_are_gone_is_not_used():
    summary = Summary(text="old things", through="gone")
    messages = [HumanMessage("hi", id="a")]
    assert with_summary(messages, summary) == messages


@pytest.mark.parametrize("words", ["", "  "])
def test_without_a_summary_the_oldest_turns_are_left_out(run, words):
    model = CountingModel(script=[lambda m: words if "Summarise this" in m[-1].text else "answer " * 20])
    graph = build_react_graph(
        model=model, checkpointer=InMemorySaver(), overflow="summarise", max_context_tokens=160
    )
    for number in range(10):
        state = run(graph, "q " * 10 + str(number))
    assert state["messages"][-1].text == "answer " * 20
    assert all(model.get_num_tokens_from_messages(each) <= 160 for each in model.requests)


def test_summaries_are_not_streamed_and_are_told():
    graph, _ = graph_of()
    seen, events = "", []
    for number in range(8):
        given = {"messages": "q " * 10 + f"question-{number}"}
        for mode, payload in graph.stream(given, SETTINGS, stream_mode=["messages", "custom"]):
            if mode == "custom":
                events.append(payload)
            else:
                seen += payload[0].text
    assert "summary of" not in seen
    assert {event["type"] for event in events} == {"context_summarised"}
    assert all(event["covered"] > 1 for event in events)


def test_calls_and_their_results_are_summarised_together():
    messages = [
        HumanMessage("sum?"),
        calls(("add", {"a": 1}), text="let me see"),
        ToolMessage("2", tool_call_id="c0", name="add"),
        AIMessage("two " * 100),
    ]
    text = transcript(messages, limit=400)
    assert "Assistant: let me see (calls add({'a': 1}))\nResult of add: 2\n" in text
    assert len(text) < 600


def test_every_request_holds_whole_groups_of_calls(run):
    def look(word: str) -> str:
        """Look a word up."""
        return f"{word} " * 15

    def answer(messages: list[Any]) -> Any:
        if "Summarise this" in messages[-1].text:
            return "summary"
        return "done" if isinstance(messages[-1], ToolMessage) else calls(("look", {"word": "x"}))

    model = CountingModel(script=[answer])
    graph = build_react_graph(
        model=model,
        tools=[look],
        checkpointer=InMemorySaver(),
        overflow="summarise",
        max_context_tokens=160,
    )
    talk(run, graph, range(12))
    assert len(summaries(model)) > 1
    for messages in model.requests:
        made = [c["id"] for m in messages if isinstance(m, AIMessage) for c in m.tool_calls]
        answered = [m.tool_call_id for m in messages if isinstance(m, ToolMessage)]
        assert made == answered
