"""Answers from documents: what is searched, kept and cited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import PrivateAttr

from agent import ChatVLLM, open_checkpointer
from agent.engines import Reply, ScriptedEngine
from graphs import build_retrieval_graph
from graphs.nodes.retrieval import MissingRetrieverError

SETTINGS: Any = {"configurable": {"thread_id": "t"}}
DOCUMENTS = [
    Document("Cats sleep long.", id="d1", metadata={"source": "cats.md", "path": Path("cats.md")}),
    Document("Dogs bark.", metadata={"source": "dogs.md"}),
    Document("Cats purr.", metadata={"source": "purr.md"}),
]


class Shelf(BaseRetriever):
    """Finds what shares a word with the query, and remembers what it was asked."""

    _queries: list[str] = PrivateAttr(default_factory=list)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        self._queries.append(query)
        words = set(query.lower().strip("?").split())
        return [each for each in DOCUMENTS if words & set(each.page_content.lower().strip(".").split())]


class Backwards(BaseDocumentCompressor):
    """Turns the order around."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        return [*documents][::-1]


def grade(*numbers: int) -> Reply:
    return Reply(tool_calls=[{"name": "Grade", "arguments": {"relevant": list(numbers)}}])


def query(text: str) -> Reply:
    return Reply(tool_calls=[{"name": "Query", "arguments": {"query": text}}])


def graph_of(*script: Any, **options: Any) -> tuple[Any, ScriptedEngine, Shelf]:
    engine, shelf = ScriptedEngine(list(script)), Shelf()
    options = {"retriever": shelf, "checkpointer": InMemorySaver(), **options}
    return build_retrieval_graph(model=ChatVLLM(engine=engine), **options), engine, shelf


def test_what_helps_is_answered_from_and_cited(run):
    graph, engine, shelf = graph_of(grade(2), "They purr [1], and fly [7].")
    state = run(graph, "What do cats do?")
    assert shelf._queries == ["What do cats do?"]
    assert [each["text"] for each in state["passages"]] == ["Cats purr."]
    answer = state["messages"][-1]
    assert answer.response_metadata["citations"] == [
        {"number": 1, "metadata": {"source": "purr.md"}, "text": "Cats purr."}
    ]
    assert answer.response_metadata["unsupported"] == [7]
    asked = engine.requests[1]["messages"]
    assert "[1] Cats purr." in asked[-1]["content"]
    assert "sleep" not in json.dumps(asked)
    # The documents are for the request alone.
    assert [m.text for m in state["messages"]] == ["What do cats do?", "They purr [1], and fly [7]."]


def test_documents_are_plain_data_in_the_state(run):
    graph, _, _ = graph_of(grade(1), "Long [1].")
    state = run(graph, "How long do cats sleep?")
    assert state["passages"] == [
        {"text": "Cats sleep long.", "metadata": {"source": "cats.md", "path": "cats.md", "id": "d1"}}
    ]
    json.dumps(state["passages"])


def test_scores_of_numpy_are_stored(tmp_path: Path):
    class Scored(Shelf):
        def _get_relevant_documents(self, *args: Any, **kwargs: Any) -> list[Document]:
            return [Document("Cats purr.", metadata={"score": np.float64(0.5), "near": np.float32(0.25)})]

    with open_checkpointer(tmp_path / "c.sqlite") as saver:
        graph, *_ = graph_of(grade(1), "They purr [1].", retriever=Scored(), checkpointer=saver)
        graph.invoke({"messages": "What do cats do?"}, SETTINGS)
        [passage] = graph.get_state(SETTINGS).values["passages"]
    assert passage["metadata"] == {"score": 0.5, "near": "0.25"}


def test_a_reranker_decides_the_order_and_top_the_number(run):
    graph, engine, _ = graph_of(grade(1), "x", reranker=Backwards(), top=1)
    state = run(graph, "What do cats do?")
    assert [each["text"] for each in state["passages"]] == ["Cats purr."]
    assert "[2]" not in engine.requests[0]["messages"][-1]["content"]


def test_a_query_that_finds_nothing_is_written_anew_and_no_more_often_than_allowed(run):
    graph, _, shelf = graph_of(query("dogs"), grade(1), "They bark [1].")
    state = run(graph, "Hounds?")
    assert shelf._queries == ["Hounds?", "dogs"]
    assert state["messages"][-1].response_metadata["citations"][0]["metadata"] == {"source": "dogs.md"}

    graph, engine, shelf = graph_of(query("birds"), "I found nothing.")
    state = run(graph, "Fish?")
    assert shelf._queries == ["Fish?", "birds"]
    assert state["passages"] == []
    assert state["messages"][-1].response_metadata["citations"] == []
    assert "do not make anything up" in engine.requests[-1]["messages"][-1]["content"]


def test_a_follow_up_question_is_made_complete_before_it_is_searched(run):
    graph, _, shelf = graph_of(grade(1), "They sleep.", query("dogs bark"), grade(1), "They bark.")
    run(graph, "What do cats do?")
    state = run(graph, "And dogs?")
    assert shelf._queries == ["What do cats do?", "dogs bark"]
    assert [each["text"] for each in state["passages"]] == ["Dogs bark."]
    assert state["rewrites"] == 0


def test_a_model_that_does_not_grade_keeps_everything(run):
    graph, _, _ = graph_of("hm", "hm", "They do things [1].")
    assert len(run(graph, "What do cats do?")["passages"]) == 2


def test_tools_may_be_called_while_answering(run):
    def shout(text: str) -> str:
        """Say it loud."""
        return text.upper()

    loud = Reply(tool_calls=[{"name": "shout", "arguments": {"text": "purr"}}])
    graph, _, _ = graph_of(grade(2), loud, "They PURR [1].", tools=[shout])
    state = run(graph, "What do cats do?")
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert len(state["messages"][-1].response_metadata["citations"]) == 1


def test_an_answer_that_was_cut_off_is_finished_from_what_was_found(tmp_path: Path):
    with open_checkpointer(tmp_path / "t.db") as saver, pytest.raises(Exception, match="script"):
        graph_of(grade(2), checkpointer=saver)[0].invoke({"messages": "cats"}, SETTINGS, durability="sync")
    with open_checkpointer(tmp_path / "t.db") as saver:
        graph, _, shelf = graph_of("They purr [1].", checkpointer=saver)
        state = graph.invoke(None, SETTINGS)
    assert shelf._queries == []
    assert state["messages"][-1].response_metadata["citations"][0]["text"] == "Cats purr."


def test_progress_is_told(run):
    graph, _, _ = graph_of(grade(2), "x")
    events = [*graph.stream({"messages": "cats"}, SETTINGS, stream_mode="custom")]
    assert events == [
        {"type": "retrieved", "query": "cats", "found": 2},
        {"type": "graded", "kept": 1, "dropped": 1},
    ]


def test_without_documents_it_is_drawn_and_says_what_is_missing(run):
    graph = build_retrieval_graph(model=ChatVLLM(engine=ScriptedEngine(["x"])))
    assert "grade" in graph.get_graph().nodes
    with pytest.raises(MissingRetrieverError, match="retriever="):
        run(graph, "cats")


@pytest.mark.parametrize("options", [{"top": 0}, {"max_rewrites": -1}])
def test_limits_are_checked(options):
    with pytest.raises(ValueError, match="must be at least"):
        graph_of("x", **options)
