"""Characters that are none: half of a surrogate pair, which no encoding of a text has a place for.

They come out of JSON whose escapes were cut in the middle of an emoji (by a model, or by a tool that
shortens a text) and from terminals and file names that are no UTF-8. No tokenizer and no connection takes
them, and one in the result of a tool would end a run.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Mapping
from typing import Any

_HALF = re.compile(rb"\xed[\xa0-\xbf]")
_UNKNOWN = "\ufffd"  # Unicode's own sign for what cannot be shown


def whole(value: Any) -> Any:
    """Return a text, or texts in lists and dictionaries, with whole characters alone.

    Two halves that stand together become the character that they are; one that stands alone becomes U+FFFD.
    What has none comes back as it is.
    """
    if isinstance(value, str):
        return _whole_text(value)
    return value if _has_no_half(value) else _mended(value)


def _has_no_half(value: Any) -> bool:
    """Whether that is certain, found out without a walk through it: long conversations are sent at each step.

    ``marshal`` writes plain data in C, with halves in the form that UTF-8 would give them. Numbers may look
    like one; then there was a walk too many.
    """
    try:
        return _HALF.search(marshal.dumps(value)) is None
    except ValueError:  # something else than plain data is in it, or it is too deep
        return False


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _whole_text(value)
    if isinstance(value, Mapping):
        return {_mended(name): _mended(part) for name, part in value.items()}
    return [_mended(part) for part in value] if isinstance(value, list | tuple) else value


def _whole_text(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return "".join(_UNKNOWN if "\ud800" <= each <= "\udfff" else each for each in paired)
    return text
