"""Texts found by their meaning: the nearest vectors, from any LangChain embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import mul

from langchain_core.embeddings import Embeddings

_RANK_OFFSET = 60


class VectorIndex:
    """Vectors of texts, of which each is computed once.

    Args:
        embeddings: Computes them.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self._vectors: dict[str, list[float]] = {}

    def search(self, query: str, texts: Sequence[str], *, limit: int) -> list[tuple[int, float]]:
        """Return the numbers of the texts nearest to a query with their cosines, the nearest first.

        Args:
            query: What to look for.
            texts: Where; vectors of other texts are forgotten.
            limit: Numbers that are returned at most.
        """
        self._learn(texts)
        wanted = _unit(self._embeddings.embed_query(query))
        near = [sum(map(mul, wanted, self._vectors[text])) for text in texts]
        best = sorted(range(len(texts)), key=lambda number: -near[number])[:limit]
        return [(number, near[number]) for number in best]

    def _learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        made = dict(zip(new, map(_unit, self._embeddings.embed_documents(new)), strict=True)) if new else {}
        known: Mapping[str, list[float]] = {**self._vectors, **made}
        self._vectors = {text: known[text] for text in texts}


def fused(rankings: Sequence[Sequence[int]], *, limit: int) -> list[tuple[int, float]]:
    """Put several rankings together: what stands high in several of them comes first.

    Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): the sum of 1 / (60 + rank).

    Args:
        rankings: Numbers, the best first.
        limit: Numbers that are returned at most.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (_RANK_OFFSET + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])[:limit]


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(map(mul, vector, vector))) or 1.0
    return [value / length for value in vector]
