"""What pooling models answer, as records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Classification:
    """The class of a text."""

    label: str
    """The likeliest class."""

    score: float
    """Its probability, or its logit where logits were asked for."""

    scores: Mapping[str, float]
    """The same of all classes, in the model's order."""


@dataclass(frozen=True, slots=True)
class Reward:
    """How good a text is, as a reward model sees it: higher is better, and there is no scale."""

    score: float
    """Of the whole text; of its last token or step where the model judges each of them."""

    steps: tuple[float, ...]
    """Of each token, or of each step that the model's step tokens mark; one value for the whole otherwise."""


@dataclass(frozen=True, slots=True)
class TokenLabel:
    """The class of one token."""

    token: str
    """As the tokenizer writes it."""

    label: str
    """Its likeliest class."""

    score: float
    """The probability of that."""

    scores: Mapping[str, float]
    """The probabilities of all classes, in the model's order."""

    start: int | None
    """Where the token begins in the text; None for control tokens, and where that cannot be told."""

    end: int | None
    """Where it ends."""


@dataclass(frozen=True, slots=True)
class Entity:
    """Neighbouring tokens of one class."""

    label: str
    """The class, without a ``B-`` or ``I-`` in front."""

    text: str
    """The words."""

    score: float
    """The mean of its tokens' probabilities."""

    start: int
    """Where it begins in the text."""

    end: int
    """Where it ends."""


@dataclass(frozen=True, slots=True)
class TokenClassification:
    """The classes of a text's tokens."""

    text: str
    tokens: tuple[TokenLabel, ...]

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Neighbouring tokens of one class as one; those of the class ``O`` are left out.

        A ``B-`` begins a new one; the classes ``B-PER`` and ``I-PER`` are one otherwise.
        """
        return tuple(self._entities())

    def _entities(self) -> Iterator[Entity]:
        number = 0
        keyed: list[tuple[tuple[int, str], TokenLabel]] = []
        before = ""
        for token in self.tokens:
            if token.start is None:
                continue
            bare = token.label[2:] if token.label[:2] in ("B-", "I-") else token.label
            number += token.label.startswith("B-") or bare != before
            before = bare
            keyed.append(((number, bare), token))
        for (_, label), group in groupby(keyed, key=lambda pair: pair[0]):
            tokens = [token for _, token in group]
            start, end = tokens[0].start or 0, tokens[-1].end or 0
            if label != "O":
                score = sum(token.score for token in tokens) / len(tokens)
                yield Entity(label, self.text[start:end], score, start, end)
