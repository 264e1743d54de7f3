"""The right passage of real documents is found, by real embeddings, for questions in other words."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import ChatVLLM
from agent.app import build_graph
from agent.engines import Reply, ScriptedEngine
from agent.settings import Settings
from benchmarks.retrieval import QUESTIONS, recall, searches, write_documents

pytestmark = pytest.mark.engine

_SHORT = 3000  # bytes: all chapters are for the benchmark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shorter chapters of Python's reference."""
    folder = tmp_path_factory.mktemp("reference")
    write_documents(folder)
    for path in folder.iterdir():
        if path.stat().st_size > _SHORT:
            path.unlink()
    return folder


def test_meaning_finds_what_words_do_not(folder: Path) -> None:
    names = {path.stem for path in folder.iterdir()}
    questions = [each for each in QUESTIONS if names.issuperset(each[1].split())]
    assert len(questions) >= 15
    found = {
        name: recall(search, (1, 3), questions)
        for name, search in searches(folder).items()
        if name in ("BM25", "embeddings")  # the others take longer; the benchmark has them
    }
    by_words, by_meaning = found.values()
    assert by_meaning[3] >= 0.75, found  # seen: 0.82, and 0.41 by words
    assert by_meaning[1] > by_words[1], found


def test_the_graph_answers_from_what_was_found(folder: Path) -> None:
    settings = Settings(graph="retrieval", documents=folder, embeddings="default", reranker="default")
    grade = Reply(tool_calls=[{"name": "Grade", "arguments": {"relevant": [1]}}])
    model = ChatVLLM(engine=ScriptedEngine([grade, "With `assert` [1]."]))
    graph = build_graph(settings, model=model, tools=[])
    state = graph.invoke({"messages": "How do I check that a condition holds while I am debugging?"})
    [citation] = state["messages"][-1].response_metadata["citations"]
    assert citation["metadata"]["source"] == "assert.txt"
    assert citation["metadata"]["relevance_score"] > 0.1
