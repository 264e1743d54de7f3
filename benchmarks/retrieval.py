"""Is the right passage found? Recall of search by words, by meaning, and by both, on real documents.

The documents are those that every Python carries: the chapters of its language reference that ``help()``
shows (``pydoc_data.topics``). The questions are ours, written as a person asks who does not know a chapter's
words; each names the chapters that answer it. Recall@k is the part of the questions for which one of the
first k passages is from such a chapter. BM25 is the built-in search of ``--documents FOLDER``.

    python -m benchmarks.retrieval
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics

from langchain_core.documents import Document

from agent.documents import open_embeddings, open_reranker
from tools.builtin.documents import FolderRetriever
from tools.builtin.passages import passages
from tools.builtin.vectors import VectorIndex

# Chapters that are made of others would answer in their place.
_COLLECTIONS = frozenset(
    ("compound", "else", "in", "naming", "objects", "specialnames", "types", "truth", "typesseq-mutable")
)

# A question, and the chapters that answer it.
QUESTIONS: Sequence[tuple[str, str]] = (
    ("How do I check that a condition holds while I am debugging?", "assert"),
    ("What is the short way to add a number to a variable and store the result?", "augassign"),
    ("How do I leave a loop before it is over?", "break for while"),
    ("How do I skip the rest of one round of a loop and go on with the next?", "continue for while"),
    ("How do I make my own type with methods?", "class"),
    ("Can I write a < b < c in one go?", "comparisons"),
    ("How do I run code line by line and look at variables where it crashed?", "debugger"),
    ("How can I get rid of a variable?", "del"),
    ("How do I write a mapping from keys to values?", "dict typesmapping"),
    ("How do I repeat something for each item of a list?", "for"),
    ("How do I round a number to two decimals when I print it?", "formatstrings"),
    ("How do parameters get default values?", "function"),
    ("How do I assign to a module-level variable inside of a function?", "global"),
    ("Which characters may a variable name consist of?", "identifiers"),
    ("What do names that begin with two underscores mean?", "id-classes"),
    ("How do I choose between two pieces of code depending on a test?", "if"),
    ("How are complex numbers written?", "imaginary"),
    ("How do I use code from another file?", "import"),
    ("How do I write a hexadecimal or a binary number?", "integers"),
    ("How do I write a small function without a name?", "lambda"),
    ("How do I change a variable of the enclosing function from an inner one?", "nonlocal"),
    ("Which operator binds more tightly than another?", "operator-summary"),
    ("What do I write where the grammar wants a statement and nothing should be done?", "pass"),
    ("What is two to the minus one?", "power"),
    ("How do I signal that an error happened?", "raise"),
    ("How does a function give its result back?", "return"),
    ("How do I move the bits of a number to the left?", "shifting"),
    ("How do I take every second item of a sequence?", "slicings typesseq"),
    ("How do I turn a text into capital letters?", "string-methods"),
    ("How do I write a backslash or a line break inside quotes?", "strings"),
    ("How do I handle an error and clean up afterwards?", "try"),
    ("How do I look up a value and give a fallback if the key is missing?", "typesmapping"),
    ("How do I flip all bits of a number or change its sign?", "unary"),
    ("How do I loop until a condition becomes false?", "while"),
    ("How is a file closed for certain, even if there is an error in the block?", "with context-managers"),
    ("How do I write a generator that hands out one value after the other?", "yield"),
    ("How do I make my objects behave like numbers, with plus and minus?", "numeric-types"),
    ("How do I compute an attribute when somebody asks for it?", "attribute-access"),
    ("How can I decide what is printed for my object?", "customization"),
    ("How do I pause a coroutine until something is ready?", "await"),
)

Search = Callable[[str], Sequence[str]]
"""From a question to the names of the chapters of the passages that are found, the best first."""


def write_documents(folder: Path) -> None:
    """Write each chapter into a file of its name."""
    for name, text in topics.items():
        if name not in _COLLECTIONS:
            (folder / f"{name}.txt").write_text(text, "utf-8")


def recall(
    search: Search, depths: Sequence[int], questions: Sequence[tuple[str, str]] = QUESTIONS
) -> dict[int, float]:
    """Ask questions; return the part for which the right chapter is among the first, by depth."""
    places = []
    for question, chapters in questions:
        right = [chapter in chapters.split() for chapter in search(question)]
        places.append(right.index(True) if True in right else max(depths))
    return {depth: sum(place < depth for place in places) / len(places) for depth in depths}


def searches(folder: Path) -> Mapping[str, Search]:
    """The ways to search; those after the first use all-MiniLM-L6-v2 on vLLM in this process."""
    embeddings, reranker = open_embeddings("default"), open_reranker("default")
    by_words = FolderRetriever(folder)
    by_both = FolderRetriever(folder, embeddings=embeddings)

    cut = [
        each
        for path in sorted(folder.iterdir())
        for each in passages(path.read_text("utf-8"), path.name, size=by_words.passage_size)
    ]
    texts, vectors = [each.text for each in cut], VectorIndex(embeddings)

    def by_meaning(question: str) -> list[str]:
        found = vectors.search(question, texts, limit=by_words.limit)
        return [Path(cut[number].source).stem for number, _ in found]

    def reranked(retriever: FolderRetriever) -> Search:
        def search(question: str) -> list[str]:
            return _chapters(reranker.compress_documents(retriever.invoke(question), question))

        return search

    return {
        "BM25": lambda question: _chapters(by_words.invoke(question)),
        "embeddings": by_meaning,
        "BM25 + embeddings": lambda question: _chapters(by_both.invoke(question)),
        "BM25, reranked": reranked(by_words),
        "BM25 + embeddings, reranked": reranked(by_both),
    }


def _chapters(found: Sequence[Document]) -> list[str]:
    return [Path(each.metadata["source"]).stem for each in found]


def main() -> int:
    """Print one row a way to search."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON in the place of a table")
    arguments = parser.parse_args()
    depths, rows = (1, 3, 5, 10), {}
    with tempfile.TemporaryDirectory() as folder:
        write_documents(Path(folder))
        for name, search in searches(Path(folder)).items():
            begin = time.perf_counter()
            search("What is this?")  # reads files, starts the engine, embeds
            first = time.perf_counter() - begin
            rows[name] = {"first": round(first, 2), **recall(search, depths)}
    if arguments.json:
        sys.stdout.write(json.dumps({"questions": len(QUESTIONS), "rows": rows}) + "\n")
        return 0
    sys.stdout.write(
        f"{len(QUESTIONS)} questions\n\n| search | recall@1 | @3 | @5 | @10 |\n|---|---|---|---|---|\n"
    )
    for name, row in rows.items():
        sys.stdout.write(f"| {name} | " + " | ".join(f"{row[depth]:.0%}" for depth in depths) + " |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
