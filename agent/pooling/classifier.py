"""``VLLMClassifier``: the class of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from agent.errors import ConfigurationError
from agent.pooling.results import Classification
from agent.pooling.runnable import PoolingRunnable


class VLLMClassifier(PoolingRunnable[Classification]):
    """Tells texts apart: a runnable from a text to a :class:`~agent.pooling.Classification`.

    ``batch`` and ``abatch`` ask for many texts at once.

    Example:
        .. code-block:: python

            from agent import VLLMClassifier

            with VLLMClassifier(model="cardiffnlp/twitter-roberta-base-sentiment-latest") as classifier:
                print(classifier.invoke("What a day!").label)

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.

    Calls raise :class:`~agent.errors.UnsupportedTaskError` where the model is no classifier, and
    :class:`~agent.errors.RequestError` where a text is too long.
    """

    labels: list[str] | None = Field(default=None, min_length=1)
    """Names of the classes in the model's order; by default the model's own. A server tells the likeliest
    alone, and the others are ``LABEL_0``, ``LABEL_1``, … then."""

    probabilities: bool = True
    """Whether scores are probabilities, and not logits."""

    async def _answers(self, texts: Sequence[str]) -> list[Classification]:
        return await self._batched(texts, self._classified)

    async def _classified(self, texts: Sequence[str], first: int) -> list[Classification]:
        _, info = await self._started()
        request: dict[str, Any] = {"input": list(texts)}
        if not self.probabilities:
            request["use_activation"] = False
        items = await self._items("classify", request, texts, first)
        known = self.labels or info.labels
        return [classification(item["probs"], known, item.get("label")) for item in items]


def classification(values: Sequence[float], known: Sequence[str], told: str | None = None) -> Classification:
    """Name the classes.

    Args:
        values: One number for each class.
        known: Their names; empty where they are unknown.
        told: The name of the likeliest one, where that alone is known.

    Raises:
        ConfigurationError: There are fewer or more names than classes.
    """
    if known and len(known) != len(values):
        raise ConfigurationError(
            f"the model tells {len(values)} classes apart, and labels= names {len(known)}"
        )
    names = list(known) or [f"LABEL_{number}" for number in range(len(values))]
    best = max(range(len(values)), key=values.__getitem__)
    if not known and told:
        names[best] = told
    return Classification(names[best], values[best], dict(zip(names, values, strict=True)))
