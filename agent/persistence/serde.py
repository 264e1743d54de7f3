"""The serializer: strict msgpack, messages in a short form, and nothing that a hostile file could run.

LangGraph's own serializer stays underneath for everything but messages. Three things are stricter here:
there is no pickle, none of the older JSON form that constructs objects by name, and only types on a list are
constructed, whatever the environment says. Messages, which are most of what a conversation holds, are written
as their plain fields: a third of the time to write and a fifth to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from types import FunctionType
from typing import Any, Final

import ormsgpack
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel

from agent.errors import DatabaseError, PersistenceError

AllowedType = type | tuple[str, str]

MESSAGE: Final = "message"
MESSAGES: Final = "messages"

_CLASSES: Final[dict[str, type[BaseMessage]]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "ai-chunk": AIMessageChunk,
    "tool": ToolMessage,
    "system": SystemMessage,
    "chat": ChatMessage,
}
_TAGS: Final = {cls: tag for tag, cls in _CLASSES.items()}
_SHAPES: Final = {tag: (cls, list(cls.model_fields), set(cls.model_fields)) for tag, cls in _CLASSES.items()}
"""Class, and names of its fields: as they are usually written, and in any order."""
_KNOWN: Final = frozenset({"null", "bytes", "bytearray", "msgpack", MESSAGE, MESSAGES})

_INTEGER: Final = ("builtins", "int")
"""How a whole number above 64 bits is made again: of its digits."""

_ARRAY, _NIL = b"\xdd", b"\xc0"
"""In msgpack: what an array begins with, before its length in four bytes; and nothing."""


class StrictSerializer(JsonPlusSerializer):
    """Msgpack for what LangGraph stores, refusing everything that is not on the list.

    Args:
        allowed_types: Further classes that may be constructed on load, or ``(module, name)`` of them. Values
            of other classes come back as their plain fields.
    """

    def __init__(self, *, allowed_types: Iterable[AllowedType] = ()) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=(_INTEGER, *allowed_types))

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize, with a short form for messages and for lists of them.

        Raises:
            PersistenceError: There is something in it that cannot be stored.
        """
        if _is_plain_message(obj):
            return MESSAGE, _pack(_fields(obj))
        if type(obj) is list and obj and all(map(_is_plain_message, obj)):
            return MESSAGES, _pack([_fields(message) for message in obj])
        if obj is None or isinstance(obj, bytes | bytearray):
            return super().dumps_typed(obj)
        return "msgpack", _pack(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Deserialize.

        Raises:
            DatabaseError: Stored in a form that this serializer refuses, or damaged.
        """
        kind, payload = data
        try:
            if kind == MESSAGE:
                return _messages([self._unpack(payload)])[0]
            if kind == MESSAGES:
                return _messages(self._unpack(payload))
            if kind in _KNOWN:
                return super().loads_typed(data)
        except (ValueError, TypeError, KeyError) as error:
            raise DatabaseError(f"a stored value of kind {kind!r} is damaged: {error}") from error
        if "+" in kind:
            raise DatabaseError(
                f"a value is stored as {kind!r}, that is, encrypted: open the conversations with their key "
                "(encryption_key=, or VLLM_AGENT_ENCRYPTION_KEY for the command)"
            )
        raise DatabaseError(
            f"refused to load a value stored as {kind!r}: only {', '.join(sorted(_KNOWN))} are safe to load. "
            "The database was written by another program, or tampered with"
        )

    def dumps_messages(self, values: Sequence[Any]) -> bytes | None:
        """Serialize messages end to end, as one by one but in one go; ``None`` if something else is there."""
        try:
            pairs = [(_TAGS[type(each)], each.__dict__) for each in values if not each.__pydantic_extra__]
        except (KeyError, AttributeError):
            return None
        return _pack(pairs)[_header(len(pairs)) :] if len(pairs) == len(values) else None

    def loads_messages(self, count: int, joined: bytes) -> list[BaseMessage]:
        """Deserialize messages that were serialized one by one, in half of the time.

        Args:
            count: How many.
            joined: Their payloads, end to end.

        Raises:
            DatabaseError: It is not so many messages.
        """
        try:
            return _messages(self._unpack_several(count, joined))
        except (ValueError, TypeError, KeyError) as error:
            raise DatabaseError(f"one of {count} stored messages is damaged: {error}") from error

    def loads_several(self, stored: Sequence[tuple[str, bytes]]) -> list[Any]:
        """Deserialize values as one by one; those that are messages, or lists of them, in one go.

        Raises:
            DatabaseError: One of them is stored in a form that this serializer refuses, or damaged.
        """
        if not stored or any(kind not in (MESSAGE, MESSAGES) for kind, _ in stored):
            return [self.loads_typed(each) for each in stored]
        joined = b"".join(payload for _, payload in stored)
        try:
            values = self._unpack_several(len(stored), joined)
            lists = [
                [value] if kind == MESSAGE else value for (kind, _), value in zip(stored, values, strict=True)
            ]
            messages = iter(_messages(pair for each in lists for pair in each))
            found = [[*islice(messages, len(each))] for each in lists]
        except (ValueError, TypeError, KeyError) as error:
            raise DatabaseError(f"one of {len(stored)} stored values is damaged: {error}") from error
        return [each[0] if kind == MESSAGE else each for (kind, _), each in zip(stored, found, strict=True)]

    def _unpack_several(self, count: int, joined: bytes) -> list[Any]:
        """Unpack so many values that stand end to end; a ``ValueError`` if they are not so many."""
        # An array of them and of a last element, nil, which is not there when one of them was not one.
        values: list[Any]
        *values, end = self._unpack(_ARRAY + (count + 1).to_bytes(4, "big") + joined + _NIL)
        if end is not None:
            raise ValueError("one of them is several")
        return values

    def _unpack(self, payload: bytes) -> Any:
        return ormsgpack.unpackb(payload, ext_hook=self._unpack_ext_hook, option=ormsgpack.OPT_NON_STR_KEYS)


def _is_plain_message(value: Any) -> bool:
    return type(value) in _TAGS and not value.__pydantic_extra__


def _header(count: int) -> int:
    """Bytes in front of the elements of an array in msgpack."""
    return 1 if count < 1 << 4 else 3 if count < 1 << 16 else 5


def _fields(message: BaseMessage) -> tuple[str, dict[str, Any]]:
    return _TAGS[type(message)], message.__dict__


def _pack(value: Any) -> bytes:
    try:
        return ormsgpack.packb(value, default=_default, option=_OPTION)
    except (TypeError, ValueError) as error:  # the first is ormsgpack's own
        raise PersistenceError(
            f"a value of type {type(value).__name__} cannot be stored: {error}. Keep plain data, messages, "
            "dataclasses or Pydantic models in the state of a graph"
        ) from error


def _default(value: Any) -> Any:
    """What msgpack itself does not know: whole numbers above 64 bits, which models write, and objects."""
    if type(value) is int:
        return ormsgpack.Ext(jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, _pack((*_INTEGER, str(value))))
    return _langgraph_default(value)


_OPTION: Final = jsonplus._option | ormsgpack.OPT_PASSTHROUGH_BIG_INT
# LangGraph's function, but for the one that it packs with what is inside of an object.
_langgraph_default: Final = FunctionType(
    jsonplus._msgpack_default.__code__, {**vars(jsonplus), "_msgpack_enc": _pack}
)


def _messages(pairs: Iterable[tuple[str, dict[str, Any]]]) -> list[BaseMessage]:
    """Messages from tags and fields.

    The fields were validated when a message was made. Doing it again would take several times as long as this
    loop, which is most of the time that it takes to load a long conversation. What can be changed belongs to
    one message. Only the set of the names of its fields, to which pydantic adds a name that is assigned, is
    the same one for those of a class here: it has all of them already.
    """
    names: dict[str, set[str]] = {}
    messages: list[BaseMessage] = []
    for tag, fields in pairs:
        cls, usual, expected = _SHAPES[tag]
        if [*fields] != usual and fields.keys() != expected:
            messages.append(
                cls(**fields)
            )  # of another version of langchain-core: let the class fill the gaps
            continue
        if (all_names := names.get(tag)) is None:
            all_names = names[tag] = expected.copy()
        message = _new(cls)
        _set_fields(message, fields)
        _set_names(message, all_names)
        _set_extra(message, {})
        _set_private(message, None)
        messages.append(message)
    return messages


_new: Final[Any] = object.__new__
_set_fields, _set_names, _set_extra, _set_private = (
    BaseModel.__dict__[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
