"""The documents that the settings name, for the graph that answers from them.

They are found by their words alone, for which nothing has to start, or by their meaning too, and put in order
by a reranker, where the settings name models for that; those start with the first search.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import PrivateAttr

from agent.errors import ConfigurationError
from tools.builtin.documents import FolderRetriever

if TYPE_CHECKING:
    from agent.pooling.embeddings import VLLMEmbeddings
    from agent.pooling.reranker import VLLMReranker

DEFAULT_MODEL = "default"
"""Stands in the settings for the model that is used where none is named."""

# A model that chats leaves little of its card, and vLLM would ask for nearly all of it a second time. These
# models are small, and have no cache that could grow.
_PART_OF_CARD = 0.1


def open_embeddings(model: str) -> VLLMEmbeddings:
    """Embeddings on vLLM in this process; passages that are too long are represented by their beginning.

    Args:
        model: Hub id, directory, or :data:`DEFAULT_MODEL`.

    Raises:
        ModelNotFoundError: It is neither.
    """
    from agent.pooling.embeddings import VLLMEmbeddings

    return VLLMEmbeddings(**_arguments(model))


def open_reranker(model: str) -> VLLMReranker:
    """A reranker on vLLM in this process; see :func:`open_embeddings`."""
    from agent.pooling.reranker import VLLMReranker

    return VLLMReranker(**_arguments(model))


def _arguments(model: str) -> dict[str, Any]:
    from agent.catalogue.hardware import machine_cards

    return {
        "model": None if model == DEFAULT_MODEL else model,
        "too_long": "truncate",
        **({"gpu_memory_utilization": _PART_OF_CARD} if machine_cards() else {}),
    }


def check_folder(folder: Path | None) -> Path:
    """The folder, if it can be searched.

    Raises:
        ConfigurationError: None is given, or it is no directory.
    """
    if folder is None:
        raise ConfigurationError(
            "the graph 'retrieval' answers from documents, and none are given: give --documents FOLDER, "
            "VLLM_AGENT_DOCUMENTS or 'documents' in config.toml "
            "(in Python: build_retrieval_graph(retriever=…))"
        )
    if not folder.is_dir():
        raise ConfigurationError(
            f"documents = {str(folder)!r}: there is no such folder; name one of Markdown and text files"
        )
    return folder


class DocumentFolder(BaseRetriever):
    """Passages of a folder, which is looked at when it is first searched.

    A graph can so be built, drawn and served before there are documents: what is missing is then an error of
    the run that needs it, in the command line's own words.
    """

    folder: Path | None
    """Markdown and text files, at any depth; ``None`` where none are given."""

    embeddings: str | None = None
    """The model that compares meanings; ``None`` to search by words alone."""

    _search: FolderRetriever | None = PrivateAttr(default=None)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        folder = check_folder(self.folder)
        if self._search is None:
            meaning = None if self.embeddings is None else open_embeddings(self.embeddings)
            self._search = FolderRetriever(folder, embeddings=meaning)
        return self._search.invoke(query, {"callbacks": run_manager.get_child()})
