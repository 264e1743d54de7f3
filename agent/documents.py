"""The documents that the settings name, for the graph that answers from them."""

from __future__ import annotations

from pathlib import Path

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import PrivateAttr

from agent.errors import ConfigurationError
from tools.builtin.documents import FolderRetriever


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

    _search: FolderRetriever | None = PrivateAttr(default=None)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        folder = check_folder(self.folder)
        if self._search is None:
            self._search = FolderRetriever(folder)
        return self._search.invoke(query, {"callbacks": run_manager.get_child()})
