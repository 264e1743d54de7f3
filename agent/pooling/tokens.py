"""``VLLMTokenClassifier``: the class of each token of a text, for example of names in it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from pydantic import Field

from agent.engines.loop import together
from agent.pooling.classifier import classification
from agent.pooling.results import TokenClassification, TokenLabel
from agent.pooling.runnable import PoolingRunnable

_WORD_MARKS = ("##", "▁", "Ġ")  # what WordPiece, SentencePiece and byte-level tokenizers mark words with


class VLLMTokenClassifier(PoolingRunnable[TokenClassification]):
    """Tells tokens apart: a runnable from a text to a :class:`~agent.pooling.TokenClassification`.

    Its ``entities`` are neighbouring tokens of one class, as text.

    Example:
        .. code-block:: python

            from agent import VLLMTokenClassifier

            with VLLMTokenClassifier(model="boltuix/NeuroBERT-NER") as names:
                print(names.invoke("Ada Lovelace lived in London.").entities)

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.

    Calls raise :class:`~agent.errors.UnsupportedTaskError` where the model classifies no tokens, and
    :class:`~agent.errors.RequestError` where a text is too long.
    """

    labels: list[str] | None = Field(default=None, min_length=1)
    """Names of the classes in the model's order; by default the model's own. A server tells none, and they
    are ``LABEL_0``, ``LABEL_1``, … then."""

    async def _answers(self, texts: Sequence[str]) -> list[TokenClassification]:
        return await self._batched(texts, self._classified)

    async def _classified(self, texts: Sequence[str], first: int) -> list[TokenClassification]:
        engine, info = await self._started()
        request = {"input": list(texts), "task": "token_classify"}
        items = await self._items("pooling", request, texts, first)
        asked = [{"prompt": text, "return_token_strs": True} for text in texts]
        tokens = await together([engine.pool("tokenize", each) for each in asked])
        known = self.labels or info.labels
        return [
            TokenClassification(
                text, tuple(_labelled(text, told["token_strs"], item["data"], known, info.control_tokens))
            )
            for text, told, item in zip(texts, tokens, items, strict=True)
        ]


def _labelled(
    text: str,
    tokens: Sequence[str],
    rows: Sequence[Sequence[float]],
    known: Sequence[str],
    control: Sequence[str],
) -> Iterator[TokenLabel]:
    places = spans(text, ["" if token in control else token for token in tokens])
    # A text that was cut off has more tokens than classes.
    for token, row, (start, end) in zip(tokens, rows, places, strict=False):
        found = classification(row, known)
        yield TokenLabel(token, found.label, found.score, found.scores, start, end)


def spans(text: str, tokens: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Find where tokens stand in their text.

    Neither vLLM nor its server tells; tokens come in the text's order, so each is looked for after the one
    before, without regard to case and accents. What cannot be found, such as a part of a character, has none.

    Args:
        text: The text.
        tokens: As the tokenizer writes them; an empty one has no place.
    """
    folded, origins = _folded(text)
    found: list[tuple[int | None, int | None]] = []
    at = 0
    for token in tokens:
        bare = token
        for mark in _WORD_MARKS:
            bare = bare.removeprefix(mark)
        wanted = _folded(bare)[0]
        begin = folded.find(wanted, at) if wanted else -1
        # Something far away is another occurrence, and the token itself was not found.
        if begin < 0 or folded[at:begin].strip():
            found.append((None, None))
            continue
        at = begin + len(wanted)
        found.append((origins[begin], origins[at - 1] + 1))
    return found


def _folded(text: str) -> tuple[str, list[int]]:
    """The text without case and accents, and the place in the text that each of its characters comes from."""
    letters, origins = [], []
    for number, letter in enumerate(text):
        for part in unicodedata.normalize("NFKD", letter.casefold()):
            if not unicodedata.combining(part):
                letters.append(part)
                origins.append(number)
    return "".join(letters), origins
