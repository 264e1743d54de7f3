"""What a caller gives, checked before the database is asked: the two databases would see it differently."""

from __future__ import annotations

from typing import Any

from agent.errors import ConfigurationError


def number(name: str, value: Any) -> int:
    """A number of rows.

    Raises:
        ConfigurationError: It is no whole number of 0 or more.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{name}={value!r}: give a whole number, 0 or more")
    return value


def words(name: str, value: Any) -> str:
    """A text, which may be empty.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}={value!r}: give a text, not {type(value).__name__}")
    return value


def tag(value: Any) -> str:
    """A tag.

    Raises:
        ConfigurationError: It is no text, or an empty one.
    """
    text = words("tag", value)
    if not text.strip():
        raise ConfigurationError(f"tag={value!r}: a tag has at least one character that can be seen")
    return text
