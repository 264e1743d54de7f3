"""Searching a folder of documents: found, cited, current, and not led outside."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import ToolCall
from langchain_core.retrievers import BaseRetriever

from tools import ToolRegistrationError, acall, call
from tools.builtin import build_document_tools
from tools.builtin.documents import FolderRetriever
from tools.builtin.keywords import KeywordIndex, words_of
from tools.builtin.passages import passages
from tools.builtin.vectors import fused

GUIDE = """# Guide

How this is used.

## Deploying

Run the deploy script twice,
then wait.

```sh
# this is a comment and no heading
deploy --now
```

## Café

Closed on Mondays.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "guide.md").write_text(GUIDE)
    (docs / "deep" / "towns.txt").write_text("Rome lies on the Tiber.\n\nParis lies on the Seine.\n")
    (docs / "code.py").write_text("deploy = 'no document'")
    return docs


def search(folder: Any, query: str, limit: int = 5, **options: Any) -> str:
    (tool,) = build_document_tools(folder, **options)
    return ask(tool, query, limit)


def ask(tool: Any, query: str, limit: int = 5) -> str:
    request = ToolCall(name=tool.name, args={"query": query, "limit": limit}, id="1", type="tool_call")
    return call(tool, request).message.text


def test_passages_are_cited_by_file_and_line(folder):
    assert search(folder, "how do I deploy?", 1) == (
        "[guide.md:5-13] (Deploying)\n## Deploying\n\nRun the deploy script twice,\nthen wait.\n\n"
        "```sh\n# this is a comment and no heading\ndeploy --now\n```"
    )
    assert search(folder, "TIBER").startswith("[deep/towns.txt:1-3]\nRome lies")
    assert search(folder, "cafe monday").startswith("[guide.md:15-17] (Café)")
    assert search(folder, "no such word anywhere xyzzy", 1) != ""
    assert search(folder, "xyzzy") == "Nothing was found for 'xyzzy'."


def test_files_that_change_come_and_go_are_noticed(folder):
    (tool,) = build_document_tools(folder)
    assert "Nothing" in ask(tool, "elephant")
    (folder / "new.md").write_text("An elephant.")
    assert "[new.md:1]" in ask(tool, "elephant")
    (folder / "new.md").write_text("A giraffe instead.")
    os.utime(folder / "new.md", ns=(1, 1))
    assert "Nothing" in ask(tool, "elephant")
    assert "[new.md:1]" in ask(tool, "giraffe")
    (folder / "new.md").unlink()
    assert "Nothing" in ask(tool, "giraffe")


def test_only_what_changed_is_read_again(folder, monkeypatch):
    (tool,) = build_document_tools(folder)
    read: list[str] = []
    real = __import__("tools.builtin.documents", fromlist=["read_at"]).read_at
    monkeypatch.setattr(
        "tools.builtin.documents.read_at", lambda *a, **k: (read.append(a[2]), real(*a, **k))[1]
    )
    ask(tool, "tiber")
    ask(tool, "tiber")
    assert sorted(read) == ["deep/towns.txt", "guide.md"]
    (folder / "guide.md").write_text("changed now")
    ask(tool, "tiber")
    assert read[2:] == ["guide.md"]


def test_links_lead_nowhere(folder, tmp_path):
    (tmp_path / "secret.md").write_text("The password is hunter2.")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.md")
    assert "Nothing" in search(folder, "hunter2 password")


def test_odd_files_do_no_harm(folder):
    (folder / "binary.md").write_bytes(b"\xff\x00\xfe tiber")
    (folder / "empty.md").write_text("")
    (folder / "large.md").write_text("tiber " * 100_000)
    (folder / "line.md").write_text("seine " * 2_000)
    assert "large.md" not in search(folder, "tiber", max_bytes=100_000)
    assert len(search(folder, "seine", 20, max_bytes=100_000)) < 20 * 2_200
    assert "more than 2 text files" in search(folder, "tiber", max_files=2)


def test_arguments_are_checked(folder):
    assert "empty" in search(folder, "  ")
    assert "1 to 20" in search(folder, "a", 21)
    for wrong in ({}, {"folder": folder, "retriever": object()}):
        with pytest.raises(ToolRegistrationError, match="either folder or retriever"):
            build_document_tools(**wrong)
    with pytest.raises(ToolRegistrationError, match="no-such"):
        build_document_tools(folder / "no-such")


class Fixed(BaseRetriever):
    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document(f"about {query}", metadata={"source": "a.pdf"}), Document("x" * 5000)]


async def test_any_retriever_can_be_asked():
    (tool,) = build_document_tools(retriever=Fixed(), name="look_up", about="the archive")
    assert tool.description == "Find passages in the archive."
    request = ToolCall(name="look_up", args={"query": "towns"}, id="1", type="tool_call")
    text = (await acall(tool, request)).message.text
    assert text.startswith("[a.pdf]\nabout towns\n\n[(no source)]\nxxx")
    assert len(text) < 2_100


def test_rare_words_count_more_and_long_texts_less():
    index = KeywordIndex(["the cat", "the dog", "the cat " + "and so on " * 50, "the the the"])
    found = index.search("the cats", limit=10)
    assert [number for number, _ in found][:2] == [0, 2]
    assert all(score > 0 for _, score in found)
    assert index.search("", limit=3) == []
    assert KeywordIndex([]).search("a", limit=3) == []


def test_words_are_compared_without_case_accents_and_endings():
    assert words_of("Deploying deploys DEPLOYED") == ["deploy"] * 3
    assert words_of("Zürich") == words_of("ZURICH")
    assert words_of("東京都") == ["東京", "京都"]
    assert words_of("第3版のvLLMは高速") == ["第", "3", "版の", "vllm", "は高", "高速"]
    index = KeywordIndex(["vLLMは高速で2倍", "nothing"])
    for words in ("高速", "vLLM", "2倍"):
        assert [number for number, _ in index.search(words, limit=5)] == [0]
    assert words_of("cities city") == ["city", "city"]


@given(st.text(alphabet="ab \n#`~\t", max_size=400), st.integers(1, 60))
def test_every_line_with_text_is_in_exactly_one_passage_with_its_number(text, size):
    lines = text.splitlines()
    seen: list[int] = []
    for each in passages(text, "f", size=size):
        assert each.text.strip()
        if each.last > each.first:
            assert each.text == "\n".join(lines[each.first - 1 : each.last])
        seen += range(each.first, each.last + 1)
    with_text = [number for number, line in enumerate(lines, 1) if line.strip()]
    assert set(with_text) <= set(seen)
    whole = [number for number in seen if len(lines[number - 1]) <= size * 2]
    assert len(whole) == len(set(whole))


def test_many_short_lines_are_cut_in_little_time():
    began = time.process_time()
    assert len(list(passages("a" + "\n" * 30_000 + "b", "f", size=800))) == 1
    assert len(list(passages("1\n" * 80_000, "f", size=800))) == 50
    assert time.process_time() - began < 3


# -- by meaning ---------------------------------------------------------------------------------------------


class Meanings(Embeddings):
    """Knows what some words mean, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [
            float(any(word in text for word in words)) for words in (("cat", "feline"), ("money", "stock"))
        ]


def test_a_passage_without_a_word_of_the_query_is_found_by_its_meaning(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The cat sleeps.")
    (tmp_path / "b.md").write_text("The stock market fell.")
    assert FolderRetriever(tmp_path).invoke("a feline") == []
    found = FolderRetriever(tmp_path, embeddings=Meanings()).invoke("a feline")
    assert [each.metadata["source"] for each in found] == ["a.md", "b.md"]


def test_each_passage_is_embedded_once(tmp_path: Path) -> None:
    meanings = Meanings()
    retriever = FolderRetriever(tmp_path, embeddings=meanings)
    assert retriever.invoke("cat") == []
    (tmp_path / "a.md").write_text("The cat sleeps.")
    (tmp_path / "same.md").write_text("The cat sleeps.")
    for _ in range(2):
        assert len(retriever.invoke("cat")) == 2
    (tmp_path / "b.md").write_text("The stock market fell.")
    retriever.invoke("cat")
    assert meanings.asked == ["\nThe cat sleeps.", "\nThe stock market fell."]


def test_what_stands_high_in_several_rankings_comes_first() -> None:
    assert [number for number, _ in fused([[1, 2, 3], [4, 2]], limit=3)] == [2, 1, 4]
