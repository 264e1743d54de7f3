"""Half characters: found wherever they are, and nothing else is touched."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chat.characters import whole

TEXTS = st.text(st.characters(), max_size=6)  # with halves
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def naive(value: Any) -> Any:
    if isinstance(value, str):
        paired = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in paired)
    if isinstance(value, dict):
        return {naive(name): naive(part) for name, part in value.items()}
    return [naive(part) for part in value] if isinstance(value, list) else value


@given(PLAIN)
def test_every_half_is_mended_and_nothing_else(value: Any) -> None:
    mended = whole(value)
    assert mended == naive(value)
    json.dumps(mended, ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["한국어 \ud7ff", "😀 \ue000", "\ufffd", "é"])
def test_what_is_whole_is_not_copied(text: str) -> None:
    value = {"a": [text, 0xEDA0, b"\xed\xa0", {"b": text}]}
    assert whole([text])[0] is text
    assert whole(value) == value


def test_other_things_than_plain_data_are_looked_through() -> None:
    odd = object()
    assert whole([odd, MappingProxyType({"a": "x\ud83d"})]) == [odd, {"a": "x\ufffd"}]
