"""Texts taken from the conversation: the grammar of strings that stand there word for word.

A small model writes «Las Vegas» where the user said «Los Angeles»: having begun, it goes on with what it
saw most often. Held to the words of the conversation it writes the right ones, and then finds the whole
call likelier than the one that it would have written freely, since greedy decoding looks one token ahead
only. So calls are written both ways, and the likelier one is taken (:mod:`agent.formats.text.candidates`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from agent.formats.text.prompt import Message, text_of

# Longer texts make a grammar slow to compile; of a conversation, its latest words are used.
_MOST_PIECES = 400

_PIECE = re.compile(r"\w+|\s+|[^\w\s]")


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
        if piece in '"\\' or "\n" in piece or not piece.isprintable():
            following = ""
        elif piece.isspace():
            if following:
                rules[name], following = f"{json.dumps(piece)} {following}", name
        else:
            rules[name] = f"{json.dumps(piece, ensure_ascii=False)} {following}?".removesuffix(" ?")
            starts.append(name)
            following = name
    return {"string": f'"\\"" ({" | ".join(reversed(starts))}) "\\""', **rules} if starts else {}
