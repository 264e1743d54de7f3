"""Texts taken from the conversation: the grammar of strings that stand there word for word.

A small model writes «Las Vegas» where the user said «Los Angeles»: having begun, it goes on with what it
saw most often. Held to the words of the conversation it writes the right ones, and then finds the whole
call likelier than the one that it would have written freely, since greedy decoding looks one token ahead
only. So calls are written both ways, and the likelier one is taken (:mod:`agent.formats.text.candidates`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.formats.text.prompt import Message, text_of

# Longer texts make a grammar slow to compile; of a conversation, its latest words are used.
_MOST_PIECES = 400

_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_STEM = 5  # letters that two forms of a word have in common

# A number, with its unit perhaps («100g»), that is no part of a word or of a formula («3x^2»).
_NUMBER = re.compile(r"(?<![\w.^])(?:0|[1-9]\d*)(?:\.\d+)?(?![\d^]|\.\d|\w?\^|[xyzn]\b)")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")

# Words that no text to copy begins or ends with, as English writes them inside a sentence.
_BETWEEN = frozenset(
    re.findall(r"\w+", "a an and are as at by for from in into is of on or than that the to was were with")
)


def words_of(messages: Sequence[Message]) -> list[str]:
    """Return the words, blanks and marks that an argument may be made of: those of users and of results.

    Args:
        messages: The conversation, in wire form.
    """
    said = [text_of(message.get("content")) for message in messages if message["role"] in ("user", "tool")]
    pieces = [piece for text in said for piece in [*_PIECE.findall(text), "\n"]]
    return pieces[-_MOST_PIECES:]


def copied_string_rules(pieces: Sequence[str]) -> dict[str, str]:
    """Return the rules under which ``string`` is a row of neighbouring pieces, without blanks at its ends.

    Args:
        pieces: As :func:`words_of` gives them; a text ends at each line break, and at what JSON would escape.

    Returns:
        Rules by name; empty where there is nothing to copy.
    """
    rules: dict[str, str] = {}
    starts: list[str] = []
    following = ""
    for position, piece in reversed(list(enumerate(pieces))):
        name = f"said_{position}"
        if piece in _BETWEEN:
            if following:
                rules[name], following = f"{json.dumps(piece)} {following}", name
        elif piece in '"\\' or "\n" in piece or not piece.isprintable():
            following = ""
        elif piece.isspace():
            if following:
                rules[name], following = f"{json.dumps(piece)} {following}", name
        else:
            rules[name] = f"{json.dumps(piece, ensure_ascii=False)} {following}?".removesuffix(" ?")
            starts.append(name)
            following = name
    if not starts:
        return {}
    return {"string": f'"\\"" ({" | ".join(reversed(starts))}) "\\""', **rules, **_number_rows(pieces)}


def numbers_of(pieces: Sequence[str]) -> list[str]:
    """Return the numbers among these words, without signs, in their order and as JSON writes them."""
    return _NUMBER.findall("".join(pieces))


def _number_rows(pieces: Sequence[str]) -> dict[str, str]:
    """Return the rules of ``numbers`` and ``integers``: rows of numbers as they follow each other."""
    numbers = numbers_of(pieces)
    return {
        **_rows("numbers", numbers),
        **_rows("integers", [number for number in numbers if number.isdigit()]),
    }


def _rows(name: str, numbers: Sequence[str]) -> dict[str, str]:
    rules = {}
    for position, number in reversed(list(enumerate(numbers))):
        following = f"{name}_{position + 1}"
        rest = f' (", " {following})?' if following in rules else ""
        rules[f"{name}_{position}"] = f'"-"? "{number}"{rest}'
    return {name: " | ".join(reversed(rules)), **rules} if rules else {}


def said(value: Any, words: Sequence[str]) -> bool:
    """Whether the conversation contains a value."""
    if isinstance(value, str):  # copied, or one of a few that the schema names
        return bool(value) and mentioned(value, words)
    if isinstance(value, list):
        return bool(value) and all(said(item, words) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    text = "".join(words)
    readings = [*_NUMBER.findall(text), *_NUMBER.findall(_GROUPED.sub("", text))]  # «1,000» may be two
    return any(float(number) == abs(value) for number in readings)


def mentioned(text: str, words: Sequence[str]) -> bool:
    """Whether every word of a text stands among these words, in whatever form."""
    said = {word.lower() for word in words}
    return all(any(_alike(part.lower(), word) for word in said) for part in re.findall(r"[^\W_]+", text))


def _alike(one: str, other: str) -> bool:
    shortest = min(len(one), len(other), _STEM)
    return one == other or (shortest >= 4 and one[:shortest] == other[:shortest])


def single_values(arguments: Mapping[str, Any]) -> list[Any]:
    """Return the single values of a call's arguments, with those inside lists and objects."""
    values: list[Any] = []
    for value in arguments.values():
        if isinstance(value, Mapping):
            values += single_values(value)
        elif isinstance(value, list):
            values += single_values(dict(enumerate(value)))  # type: ignore[arg-type]
        else:
            values.append(value)
    return values
