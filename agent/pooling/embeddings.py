"""``VLLMEmbeddings``: LangChain's embeddings on vLLM."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from pydantic import Field

from agent.pooling.model import PoolingModel
from agent.pooling.prompts import known_prompts


def embedder() -> Path:
    """Return the directory of the model for those who name none."""
    from agent.catalogue.embedder import embedder_model

    return embedder_model()


class VLLMEmbeddings(PoolingModel, Embeddings):
    """Vectors of texts, near each other where the texts mean the same.

    Example:
        .. code-block:: python

            from agent import VLLMEmbeddings

            with VLLMEmbeddings() as embeddings:
                vectors = embeddings.embed_documents(["A cat sleeps.", "Stocks fell."])

    Args:
        model: Hub id or local directory; without it and ``base_url`` all-MiniLM-L6-v2 (384 dimensions, 256
            tokens, English), which is fetched on first use (84 MB).

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.

    Calls raise :class:`~agent.errors.UnsupportedTaskError` where the model makes no embeddings, and
    :class:`~agent.errors.RequestError` where a text is too long or ``dimensions`` cannot be had.
    """

    query_prompt: str | None = None
    """Stands before each query; by default what the model's own files or the catalogue say."""

    document_prompt: str | None = None
    """Stands before each document; by default as for queries."""

    dimensions: int | None = Field(default=None, ge=1)
    """The first so many dimensions alone, for models that are trained for it (Matryoshka)."""

    normalize: bool | None = None
    """Whether vectors have length 1; by default as the model is made."""

    @classmethod
    def _default_model(cls) -> Callable[[], Path]:
        return embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text, in their order."""
        return self._run(self._vectors(texts, query=False)) if texts else []

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text, in their order."""
        return await self._arun(self._vectors(texts, query=False)) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return self._run(self._vectors([text], query=True))[0]

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return (await self._arun(self._vectors([text], query=True)))[0]

    async def _vectors(self, texts: Sequence[str], *, query: bool) -> list[list[float]]:
        _, info = await self._started()
        known = known_prompts(self.model or info.model)[0 if query else 1]
        prompt = self.query_prompt if query else self.document_prompt
        return await self._batched(texts, partial(self._embed, known if prompt is None else prompt))

    async def _embed(self, prompt: str, texts: Sequence[str], first: int) -> list[list[float]]:
        whole = [prompt + text for text in texts]
        options = {"dimensions": self.dimensions, "use_activation": self.normalize}
        request = {
            "input": whole,
            "encoding_format": "base64",  # a quarter of the bytes, and exact
            "endianness": "little",
            **{name: value for name, value in options.items() if value is not None},
        }
        items = await self._items("embeddings", request, whole, first)
        return [_decoded(item["embedding"]) for item in items]


def _decoded(vector: Any) -> list[float]:
    """Numbers, or little-endian float32 in base64."""
    if not isinstance(vector, str):
        return [float(value) for value in vector]
    numbers = array.array("f", base64.b64decode(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
