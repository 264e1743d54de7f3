"""Documents and results of steps that are longer than a request may be."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from agent import ChatVLLM
from agent.engines import Reply, ScriptedEngine
from graphs import build_plan_execute_graph, build_retrieval_graph
from graphs.context import side_by_side

LONG = "word " * 5000
BUDGET = 2000


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(LONG), Document("Cats sleep."), Document(LONG)]


def form(name: str, **arguments: Any) -> Reply:
    return Reply(tool_calls=[{"name": name, "arguments": arguments}])


def longest(engine: ScriptedEngine) -> int:
    """Words, which are the tokens of a scripted engine."""
    return max(
        sum(len(str(message["content"]).split()) for message in request["messages"])
        for request in engine.requests
    )


def test_passages_are_cut_to_what_a_request_may_take() -> None:
    engine = ScriptedEngine([form("Grade", relevant=[1, 2, 3]), "They sleep [2]."])
    model = ChatVLLM(engine=engine)
    graph = build_retrieval_graph(model=model, retriever=Shelf(), max_context_tokens=BUDGET)
    state = graph.invoke({"messages": "Do cats sleep?"})
    assert longest(engine) <= BUDGET
    assert all("[2] Cats sleep.\n" in request["messages"][-1]["content"] for request in engine.requests)
    assert [each["text"] for each in state["passages"]] == [LONG, "Cats sleep.", LONG]


def test_results_of_steps_are_cut_to_what_a_request_may_take() -> None:
    more, enough = form("Replan", finished=False, steps=["b"]), form("Replan", finished=True, steps=[])
    engine = ScriptedEngine([form("Plan", steps=["a", "b"]), LONG, more, LONG, enough, "Done."])
    graph = build_plan_execute_graph(model=ChatVLLM(engine=engine), max_context_tokens=BUDGET)
    state = graph.invoke({"messages": "Do it."})
    assert longest(engine) <= BUDGET
    assert [each["result"] for each in state["results"]] == [LONG.strip()] * 2


@pytest.mark.parametrize("budget", [None, 1000])
def test_what_fits_stays_as_it_is(budget: int | None) -> None:
    assert side_by_side(["a", "", "日本語"], budget) == ["a", "", "日本語"]
    assert side_by_side([], budget) == []


def test_no_character_is_cut_in_two() -> None:
    assert side_by_side(["日本語" * 9, "ab"], 10) == ["日本語日 […]", "ab"]
