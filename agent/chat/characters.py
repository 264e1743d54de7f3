"""Characters that are none: half of a surrogate pair, which no encoding of a text has a place for.

They come out of JSON whose escapes were cut in the middle of an emoji (by a model, or by a tool that
shortens a text) and from terminals and file names that are no UTF-8. No tokenizer and no connection takes
them, and one in the result of a tool would end a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNKNOWN = "\ufffd"  # Unicode's own sign for what cannot be shown


def whole(value: Any) -> Any:
    """Return a text, or texts in lists and dictionaries, with whole characters alone.

    Two halves that stand together become the character that they are; one that stands alone becomes U+FFFD.
    """
    if isinstance(value, str):
        return _whole_text(value)
    if isinstance(value, Mapping):
        return {whole(name): whole(part) for name, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list | tuple) else value


def _whole_text(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return "".join(_UNKNOWN if "\ud800" <= each <= "\udfff" else each for each in paired)
    return text
