"""Whether an answer has the form that all above an engine rely on: servers of other software may have others.

Gateways give an answer without choices where a filter was at work, and some servers a content that is a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeGuard

from agent.engines.base import PoolingRoute

_SAID: Mapping[PoolingRoute, tuple[str, type | UnionType]] = {
    "embeddings": ("embedding", str | list),
    "rerank": ("relevance_score", int | float),
    "classify": ("probs", list),
    "pooling": ("data", list),
}
"""What the routes for pooling models say of each text."""


def is_answer(answer: Any, *, chat: bool) -> bool:
    """Whether this is a whole answer: a conversation's (``chat``), or the continuation of a text."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    whole = _is_message if chat else _is_text
    return isinstance(choices, list) and bool(choices) and all(map(whole, choices))


def is_chunk(chunk: Any) -> bool:
    """Whether this is one chunk of a stream; the one with the counts of tokens has no choices."""
    choices = (chunk.get("choices") or []) if isinstance(chunk, Mapping) else None
    return isinstance(choices, list) and all(map(_is_part, choices))


def is_pooled(answer: Any, route: PoolingRoute) -> bool:
    """Whether this is the answer of one of vLLM's routes for pooling models."""
    name = {"rerank": "results", "tokenize": "tokens"}.get(route, "data")
    items = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(items, list):
        return False
    if route == "tokenize":
        return True
    said, kind = _SAID[route]
    return all(
        isinstance(item, Mapping) and isinstance(item.get("index"), int) and isinstance(item.get(said), kind)
        for item in items
    )


def _is_text(choice: Any) -> bool:
    return isinstance(choice, Mapping) and isinstance(choice.get("text"), str)


def _is_message(choice: Any) -> bool:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    return _says_text(message) and all(
        isinstance(call, Mapping)
        and isinstance(function := call.get("function"), Mapping)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str | None)
        for call in message.get("tool_calls") or ()
    )


def _is_part(choice: Any) -> bool:
    if not isinstance(choice, Mapping):
        return False
    delta = choice.get("delta") or {}
    return (
        isinstance(choice.get("text"), str | None)
        and _says_text(delta)
        and all(
            isinstance(call, Mapping)
            and isinstance(call.get("index"), int)
            and isinstance(function := call.get("function") or {}, Mapping)
            and isinstance(function.get("name"), str | None)
            and isinstance(function.get("arguments"), str | None)
            for call in delta.get("tool_calls") or ()
        )
    )


def _says_text(message: Any) -> TypeGuard[Mapping[str, Any]]:
    return (
        isinstance(message, Mapping)
        and isinstance(message.get("content"), str | None)
        and isinstance(message.get("tool_calls"), list | None)
    )
