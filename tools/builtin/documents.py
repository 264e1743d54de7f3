"""Searching a folder of documents, with citations by file and line.

The search itself can be any LangChain retriever, for example one over embeddings. The one that is built in
finds passages by their words, which needs no model, and by their meaning too where it is given embeddings; it
notices by itself when files change. The folder cannot be left: no symbolic link in it is followed.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool
from pydantic import PrivateAttr

from tools.builtin.keywords import KeywordIndex
from tools.builtin.passages import Passage, passages
from tools.builtin.root import Root, read_at
from tools.builtin.vectors import VectorIndex, fused
from tools.decorator import tool
from tools.errors import ToolError, ToolInputError, ToolRegistrationError
from tools.policy import ToolPolicy

_ENDINGS = (".md", ".markdown", ".txt", ".rst", ".adoc", ".org", ".text")
_MOST = 20  # passages in one answer
_SHOWN = 2000  # characters of one passage


def build_document_tools(
    folder: str | os.PathLike[str] | None = None,
    *,
    retriever: BaseRetriever | None = None,
    name: str = "search_documents",
    about: str = "the documents",
    max_files: int = 5000,
    max_bytes: int = 1_000_000,
) -> list[BaseTool]:
    """A tool that finds passages.

    Args:
        folder: Markdown and text files, at any depth; searched by words.
        retriever: In the place of ``folder``: any LangChain retriever. Its documents are cited by
            ``metadata["source"]``, with the lines ``metadata["first_line"]`` to ``["last_line"]`` if given.
        name: The tool's name, where there are several folders.
        about: What the documents are about, for the model: ``"the handbook of our company"``.
        max_files: Files that are read; more are an error, since a part would look like the whole.
        max_bytes: The largest file that is read.

    Raises:
        ToolRegistrationError: Neither or both of ``folder`` and ``retriever`` are given, or no such folder.
    """
    if (folder is None) == (retriever is None):
        raise ToolRegistrationError("a search needs either folder or retriever")
    if folder is not None:
        if not os.path.isdir(os.path.expanduser(folder)):
            raise ToolRegistrationError(f"the folder {os.fspath(folder)!r} does not exist")
        retriever = FolderRetriever(folder, max_files=max_files, max_bytes=max_bytes)
    assert retriever is not None
    search: BaseRetriever = retriever

    @tool(name, policy=ToolPolicy(timeout=60, idempotent=True), description=f"Find passages in {about}.")
    async def search_documents(query: str, limit: int = 5) -> str:
        """Find passages.

        Args:
            query: What to look for, in a few words.
            limit: How many passages at most.
        """
        if not query.strip():
            raise ToolInputError("the query is empty")
        if not 1 <= limit <= _MOST:
            raise ToolInputError(f"limit={limit}: 1 to {_MOST}")
        found = await search.ainvoke(query)
        return "\n\n".join(_shown(each) for each in found[:limit]) or f"Nothing was found for {query!r}."

    return [search_documents]


class FolderRetriever(BaseRetriever):
    """Passages of the text files below a folder, by the words in them, or by words and meaning."""

    embeddings: Embeddings | None = None
    """Compares meanings: the passages are then ranked by their words and by their vectors, and the two
    rankings put together. Vectors are computed when passages are first searched, and kept in memory."""

    limit: int = _MOST
    """How many passages are found at most."""

    passage_size: int = 800
    """Characters of a passage, about."""

    _root: Root = PrivateAttr()
    _max_files: int = PrivateAttr()
    _max_bytes: int = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _read: dict[str, tuple[tuple[int, ...], list[Passage]]] = PrivateAttr(default_factory=dict)
    _passages: list[Passage] = PrivateAttr(default_factory=list)
    _texts: list[str] = PrivateAttr(default_factory=list)
    _index: KeywordIndex | None = PrivateAttr(default=None)
    _vectors: VectorIndex | None = PrivateAttr(default=None)

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_files: int = 5000,
        max_bytes: int = 1_000_000,
        **fields: Any,
    ) -> None:
        super().__init__(**fields)
        self._root = Root(folder)
        self._max_files, self._max_bytes = max_files, max_bytes
        if self.embeddings is not None:
            self._vectors = VectorIndex(self.embeddings)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        with self._lock:
            index, found = self._current(), self._passages
            ranked = self._ranked(query, index)
        return [
            Document(
                found[number].text,
                metadata={
                    "source": found[number].source,
                    "heading": found[number].heading,
                    "first_line": found[number].first,
                    "last_line": found[number].last,
                    "score": round(score, 4),
                },
            )
            for number, score in ranked
        ]

    def _ranked(self, query: str, index: KeywordIndex) -> list[tuple[int, float]]:
        by_words = index.search(query, limit=self.limit)
        if self._vectors is None or not self._texts:
            return by_words
        near = self._vectors.search(query, self._texts, limit=self.limit)
        return fused([[number for number, _ in each] for each in (by_words, near)], limit=self.limit)

    def _current(self) -> KeywordIndex:
        """The index of the files as they are now; only what changed is read again."""
        now: dict[str, tuple[tuple[int, ...], list[Passage]]] = {}
        for entry in self._root.walk("."):
            if (
                entry.size is None
                or entry.size > self._max_bytes
                or not entry.name.lower().endswith(_ENDINGS)
            ):
                continue
            if len(now) == self._max_files:
                raise ToolError(
                    f"the folder has more than {self._max_files:,} text files: name a smaller one"
                )
            known = self._read.get(entry.path)
            try:
                status = os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if known is None or known[0] != stamp:
                    data = read_at(entry.directory, entry.name, entry.path, limit=self._max_bytes)
                    text = data.decode("utf-8-sig", "replace")
                    known = (stamp, list(passages(text, entry.path, size=self.passage_size)))
            except (OSError, ToolInputError):  # gone or exchanged since it was listed
                continue
            now[entry.path] = known
        if self._index is None or now != self._read:
            self._read = now
            self._passages = [each for path in sorted(now) for each in now[path][1]]
            # The heading says what a passage is about, often in words that the passage itself leaves out.
            self._texts = [f"{each.heading}\n{each.text}" for each in self._passages]
            self._index = KeywordIndex(self._texts)
        return self._index


def _shown(document: Document) -> str:
    """A passage under its citation."""
    about = document.metadata
    place = str(about.get("source", "(no source)"))
    if about.get("first_line") is not None:
        first, last = about["first_line"], about.get("last_line", about["first_line"])
        place += f":{first}" + (f"-{last}" if last != first else "")
    heading = f" ({about['heading']})" if about.get("heading") else ""
    text = document.page_content.strip()
    return f"[{place}]{heading}\n{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}"
