"""``VLLMReranker``: documents put in the order in which they answer a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import Field

from agent.chat.characters import whole
from agent.errors import ModelNotFoundError
from agent.pooling.embeddings import embedder
from agent.pooling.model import PoolingModel
from agent.protocols.control import ControlText

_PLAIN = ("", "pair")  # what the catalogue says of models that take both texts as their tokenizer joins them


class VLLMReranker(PoolingModel, BaseDocumentCompressor):
    """Puts documents in the order in which they answer a query, and keeps the best.

    A cross-encoder reads query and document together. A model for embeddings can be given too, and without
    ``model`` and ``base_url`` all-MiniLM-L6-v2 is: the score is then the cosine of the two vectors.

    Example:
        .. code-block:: python

            from agent import VLLMReranker
            from langchain_core.documents import Document

            with VLLMReranker(model="BAAI/bge-reranker-v2-m3", top_n=3) as reranker:
                best = reranker.compress_documents(
                    [Document("A cat sleeps."), Document("Stocks fell.")], query="What do cats do?"
                )

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.

    Calls raise :class:`~agent.errors.UnsupportedTaskError` where the model scores no pairs, and
    :class:`~agent.errors.RequestError` where a document is too long.
    """

    top_n: int | None = Field(default=None, ge=1)
    """Documents that are kept; all without it."""

    instruction: str | None = None
    """What a document is wanted for, for models whose template has a place for it."""

    score_template: str | None = None
    """A Jinja template that puts the messages ``query`` and ``document`` together; by default what the
    catalogue says of the model. A server has its own: ``--chat-template``."""

    probabilities: bool = True
    """Whether scores of a cross-encoder are between 0 and 1, and not logits."""

    @classmethod
    def _default_model(cls) -> Callable[[], Path]:
        return embedder

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks = None
    ) -> Sequence[Document]:
        """Return the best documents, best first, each with its ``metadata["relevance_score"]``."""
        return self._best(documents, self.score(query, [each.page_content for each in documents]))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks = None
    ) -> Sequence[Document]:
        """Return the best documents, best first, each with its ``metadata["relevance_score"]``."""
        return self._best(documents, await self.ascore(query, [each.page_content for each in documents]))

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return how well each text answers the query, in the order of the texts."""
        return self._run(self._scores(query, texts)) if texts else []

    async def ascore(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return how well each text answers the query, in the order of the texts."""
        return await self._arun(self._scores(query, texts)) if texts else []

    async def _scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return await self._batched(texts, partial(self._ranked, query))

    async def _ranked(self, query: str, texts: Sequence[str], first: int) -> list[float]:
        plain = await self._as_data()
        request: dict[str, Any] = {"query": plain(whole(query)), "documents": [plain(text) for text in texts]}
        if self.instruction is not None:
            request["instruction"] = self.instruction
        if not self.probabilities:
            request["use_activation"] = False
        pairs = [f"{query} {text}" for text in texts]
        return [float(item["relevance_score"]) for item in await self._items("rerank", request, pairs, first)]

    async def _as_data(self) -> Callable[[str], str]:
        """Return what breaks control tokens: in a template's turns, no document may speak for the model."""
        template = self._template()
        if template is None:
            return str
        _, info = await self._started()
        control = ControlText(info.control_tokens, template)
        return control.plain

    def _best(self, documents: Sequence[Document], scores: Sequence[float]) -> list[Document]:
        order = sorted(range(len(documents)), key=lambda number: -scores[number])[: self.top_n]
        return [
            Document(
                documents[number].page_content,
                id=documents[number].id,
                metadata={**documents[number].metadata, "relevance_score": scores[number]},
            )
            for number in order
        ]

    def _local(self) -> Mapping[str, Any]:
        if self.model is None or self.base_url is not None or self.engine is not None:
            return {}
        overrides: Mapping[str, Any] = {}
        if (known := _known(self.model)) is not None and "hf_overrides" not in self.vllm_kwargs:
            overrides = known.hf_overrides or {}
        template = {} if (text := self._template()) is None else {"chat_template": text}
        return {**template, **({"hf_overrides": dict(overrides)} if overrides else {})}

    def _template(self) -> str | None:
        if self.score_template is not None:
            return self.score_template
        known = _known(self.model) if self.model else None
        name = (known.score_template if known else None) or ""
        if name in _PLAIN:
            return None
        return files("agent.pooling").joinpath(f"jinja/{name}.jinja").read_text("utf-8")


def _known(model: str) -> Any:
    """What the catalogue says of a model; None where it has none of that name."""
    from agent.catalogue.models import find_model

    try:
        return find_model(model)
    except ModelNotFoundError:
        return None
