"""Whatever a tool returned, as something a model can read and a checkpoint can hold.

A tool may return anything: megabytes, bytes, NaN, an object that contains itself, half a surrogate pair.
None of that may end a run, and nothing in the text may change from one run to the next (memory addresses,
the order of a set), because the text becomes part of the prompt.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Set
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.load.serializable import Serializable
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.tools.base import TOOL_MESSAGE_BLOCK_TYPES
from pydantic import BaseModel

from tools.errors import ToolError

_DEPTH = 40  # levels of nesting that are shown
_ITEMS = 1000  # items taken from an iterator, which might not end
_INTEGER_BITS = 14_000  # Python refuses to print integers of more than 4300 digits
_IN_DOCUMENTS = (datetime.date, datetime.time, datetime.timedelta, Decimal, UUID, PurePath, enum.Enum, Set)

Content = str | list[str | dict[str, Any]]


def render(value: Any) -> Any:
    """The result of a tool as message content: text, or content blocks.

    Messages and LangGraph commands (``ToolOutputMixin``) come back untouched.

    Raises:
        ToolError: A sync tool returned an awaitable, so its work was never done.
    """
    if _is_graph_output(value):
        return value
    if isinstance(value, str):
        return clean(value)
    if value is None:
        return "Done. The tool returned no value."
    if _is_blocks(value):
        return [clean(block) if isinstance(block, str) else _plain(block, ()) for block in value]
    plain = _plain(value, ())
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def storable(artifact: Any) -> Any:
    """The artifact itself if a checkpoint can hold it, else its text."""
    return artifact if _is_storable(artifact, _DEPTH) else render(artifact)


def cut(content: Content, limit: int) -> Content | None:
    """The content with its text cut to ``limit`` characters and a note, ``None`` where it is short enough."""
    if isinstance(content, str):
        return _cut_text(content, limit) if len(content) > limit else None
    total = sum(len(_text_of(block)) for block in content)
    if total <= limit:
        return None
    kept: list[str | dict[str, Any]] = []
    left = limit
    for block in content:
        text = _text_of(block)
        if not text:
            kept.append(block)
        elif left > 0:
            shorter = _cut_text(text, left, total=total) if len(text) > left else text
            kept.append(shorter if isinstance(block, str) else {**block, "text": shorter})
            left -= len(text)
    return kept


def clean(text: str) -> str:
    """Text that can be encoded: halves of surrogate pairs become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _cut_text(text: str, limit: int, *, total: int | None = None) -> str:
    note = f"\n[Cut: this is the beginning of {total or len(text):,} characters.]"
    return text[: max(limit - len(note), 0)] + note


def _text_of(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    text = block.get("text")
    return text if isinstance(text, str) else ""


def _is_graph_output(value: Any) -> bool:
    several = isinstance(value, list) and value and all(isinstance(item, ToolOutputMixin) for item in value)
    return bool(several) or isinstance(value, ToolOutputMixin)


def _is_blocks(value: Any) -> bool:
    """A list of plain strings is data, not blocks: as blocks its items would run together."""
    if not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
        return False
    return all(isinstance(item, str) or _is_block(item) for item in value)


def _is_block(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("type") not in TOOL_MESSAGE_BLOCK_TYPES:
        return False
    return item["type"] != "text" or isinstance(item.get("text"), str)


def _plain(value: Any, parents: tuple[int, ...]) -> Any:
    """``value`` made of JSON types only; ``parents`` are the ids of the containers it lies in."""
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in _LEAVES:
        if isinstance(value, kind):
            return convert(value)
    if id(value) in parents:
        return "(contains itself)"
    if len(parents) >= _DEPTH:
        return "(nested too deeply to show)"
    return _plain_container(value, (*parents, id(value)))


def _plain_container(value: Any, parents: tuple[int, ...]) -> Any:
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, parents) for key, item in value.items()}
    if isinstance(value, Set):
        # Sets have no order of their own, and the text must not change between runs.
        return sorted(
            (_plain(item, parents) for item in value), key=lambda item: json.dumps(item, sort_keys=True)
        )
    if isinstance(value, list | tuple):
        return [_plain(item, parents) for item in value]
    if isinstance(value, Iterator):
        return [_plain(item, parents) for item in itertools.islice(value, _ITEMS)]
    return _object(value, parents)


def _object(value: Any, parents: tuple[int, ...]) -> Any:
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise ToolError("the tool returned an awaitable that nobody awaited: declare it with 'async def'")
    convert = getattr(value, "tolist", None)  # numpy arrays and scalars, torch tensors
    if callable(convert):
        return _plain(convert(), parents)
    own_text = any({"__str__", "__repr__"} & vars(base).keys() for base in type(value).__mro__[:-1])
    if not own_text:
        return (
            f"({type(value).__qualname__} object without a text form)"  # the default one is a memory address
        )
    return clean(str(value))


def _key(key: Any) -> str:
    plain = _plain(key, ())
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _integer(value: int) -> int | str:
    if value.bit_length() > _INTEGER_BITS:
        return f"(integer of about {int(value.bit_length() * math.log10(2)):,} digits)"
    return int(value)


def _float(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


def _bytes(value: bytes | bytearray | memoryview) -> str:
    data = bytes(value)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if "\0" not in text else f"(binary data, {len(data):,} bytes, not shown)"


_LEAVES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: _plain(value.value, ())),
    (str, clean),
    (int, _integer),
    (float, _float),
    ((bytes, bytearray, memoryview), _bytes),
    ((datetime.date, datetime.time), lambda value: value.isoformat()),
    (
        (datetime.timedelta, Decimal, Fraction, complex, UUID, PurePath, BaseException),
        lambda value: clean(str(value)),
    ),
)


def _is_storable(value: Any, depth: int, *, also: tuple[type, ...] = ()) -> bool:
    if isinstance(value, Document):  # its metadata may be anything
        return depth > 0 and _is_storable(value.metadata, depth - 1, also=_IN_DOCUMENTS)
    if value is None or isinstance(value, (bool, bytes, Serializable, *also)):
        return True
    if isinstance(value, float):
        return type(value) is float  # a float64 of NumPy is one as well, and MessagePack does not know it
    if isinstance(value, str):
        return clean(value) == value
    if isinstance(value, int):
        return -(2**63) <= value < 2**63  # what MessagePack holds
    if isinstance(value, list | tuple):
        return depth > 0 and all(_is_storable(item, depth - 1, also=also) for item in value)
    if isinstance(value, dict):
        return depth > 0 and all(
            isinstance(key, str) and _is_storable(item, depth - 1, also=also) for key, item in value.items()
        )
    return False
