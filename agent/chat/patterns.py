"""Patterns in schemas: which of them a grammar can hold an answer to, and which of them Python reads.

xgrammar 0.2.8 refuses some constructs, and so the whole request. Others it reads as something else, and the
model is then made to write what no check lets through: of a class it does not know it takes the letters, and
quotes, backslashes and control characters it puts into the JSON as they are.
"""

from __future__ import annotations

import re
from typing import Any

_UNHELD = re.compile(
    r"(?<!\\)\(\?(?!:)"  # look-around, names, flags, conditions
    r"|(?<!\\)\[\^?\]"  # a class that begins with its bracket
    r"|(?<!\\)\{(?!\d+(,\d*)?\})"  # a brace that counts nothing
    r'|"|\\["\\]'
    r"|\\[^\W_dDwWsSxu]"  # boundaries, ends, references back, control characters
    r"|\\(x|u00)([01]|22|5[cC])"
)


def readable(pattern: Any) -> bool:
    """Whether Python reads this; ``\\p{L}``, for example, is read by other languages only."""
    try:
        re.compile(pattern)
    except (re.error, TypeError, OverflowError, RecursionError):
        return False
    return True


def held(pattern: Any) -> bool:
    """Whether a grammar holds to this what Python, which checks the answer, takes it for."""
    return isinstance(pattern, str) and readable(pattern) and not _UNHELD.search(pattern)
