"""Finding passages by their words: BM25, in memory.

The formula is that of Robertson and Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*
(2009), section 3, with the usual constants and an inverse document frequency that is never negative.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

_K1, _B = 1.5, 0.75  # how soon further occurrences count less; how much a passage's length counts
_WORD = re.compile(r"\w+")
# Scripts without blanks between words: each pair of characters counts as one.
_UNBROKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f]+")
_SEAM = re.compile(
    f"({_UNBROKEN.pattern})"
)  # where a word of another script stands beside them: «vLLMは速い»
_ENDINGS = ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s")


class KeywordIndex:
    """Ranks texts by the words of a query."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._lengths: list[int] = []
        self._postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, text in enumerate(texts):
            words = Counter(words_of(text))
            self._lengths.append(sum(words.values()))
            for word, count in words.items():
                self._postings[word].append((number, count))
        self._mean = (sum(self._lengths) / len(self._lengths) if self._lengths else 0.0) or 1.0

    def search(self, query: str, *, limit: int) -> list[tuple[int, float]]:
        """Numbers of the texts that fit best with their scores, best first; none that has no word of it."""
        scores: defaultdict[int, float] = defaultdict(float)
        for word in sorted(set(words_of(query))):
            found = self._postings.get(word, ())
            rarity = math.log(1 + (len(self._lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for number, count in found:
                length = 1 - _B + _B * self._lengths[number] / self._mean
                scores[number] += rarity * count * (_K1 + 1) / (count + _K1 * length)
        return heapq.nsmallest(limit, scores.items(), key=lambda item: (-item[1], item[0]))


def words_of(text: str) -> list[str]:
    """The words of a text in the form in which they are compared: small, without accents and endings."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = []
    for word in (part for found in _WORD.findall(plain) for part in _SEAM.split(found) if part):
        if _UNBROKEN.fullmatch(word):
            words += [word[at : at + 2] for at in range(max(len(word) - 1, 1))]
        else:
            words.append(_stem(word))
    return words


def _stem(word: str) -> str:
    """A word without the commonest English endings, so that «deploys» finds «deploying»."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word
