"""The serializer: strict msgpack, messages in a short form, and nothing that a hostile file could run.

LangGraph's own serializer stays underneath for everything but messages. Three things are stricter here:
there is no pickle, none of the older JSON form that constructs objects by name, and only types on a list are
constructed, whatever the environment says. Messages, which are most of what a conversation holds, are written
as their plain fields: a third of the time to write and a fifth to read.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer, _msgpack_default, _option

from agent.errors import DatabaseError

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
_FIELDS: Final = {cls: set(cls.model_fields) for cls in _TAGS}
_KNOWN: Final = frozenset({"null", "bytes", "bytearray", "msgpack", MESSAGE, MESSAGES})


class StrictSerializer(JsonPlusSerializer):
    """Msgpack for what LangGraph stores, refusing everything that is not on the list.

    Args:
        allowed_types: Further classes that may be constructed on load, or ``(module, name)`` of them. Values
            of other classes come back as their plain fields.
    """

    def __init__(self, *, allowed_types: Iterable[AllowedType] = ()) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=tuple(allowed_types) or None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize, with a short form for messages and for lists of them."""
        if _is_plain_message(obj):
            return MESSAGE, _pack(_fields(obj))
        if type(obj) is list and obj and all(map(_is_plain_message, obj)):
            return MESSAGES, _pack([_fields(message) for message in obj])
        return super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Deserialize.

        Raises:
            DatabaseError: Stored in a form that this serializer refuses, or damaged.
        """
        kind, payload = data
        try:
            if kind == MESSAGE:
                return _message(*self._unpack(payload))
            if kind == MESSAGES:
                return [_message(*pair) for pair in self._unpack(payload)]
            if kind in _KNOWN:
                return super().loads_typed(data)
        except (ValueError, TypeError, KeyError) as error:
            raise DatabaseError(f"a stored value of kind {kind!r} is damaged: {error}") from error
        raise DatabaseError(
            f"refused to load a value stored as {kind!r}: only {', '.join(sorted(_KNOWN))} are safe to load. "
            "The database was written by another program, or tampered with"
        )

    def _unpack(self, payload: bytes) -> Any:
        return ormsgpack.unpackb(payload, ext_hook=self._unpack_ext_hook, option=ormsgpack.OPT_NON_STR_KEYS)


def _is_plain_message(value: Any) -> bool:
    return type(value) in _TAGS and not value.__pydantic_extra__


def _fields(message: BaseMessage) -> tuple[str, dict[str, Any]]:
    return _TAGS[type(message)], message.__dict__


def _pack(value: Any) -> bytes:
    return ormsgpack.packb(value, default=_msgpack_default, option=_option)


def _message(tag: str, fields: dict[str, Any]) -> BaseMessage:
    cls = _CLASSES[tag]
    expected = _FIELDS[cls]
    if fields.keys() != expected:  # written by another version of langchain-core: let the class fill the gaps
        return cls(**fields)
    # The fields were validated when the message was made; doing it again takes three times as long.
    message = cls.__new__(cls)
    object.__setattr__(message, "__dict__", fields)
    object.__setattr__(message, "__pydantic_fields_set__", set(fields))
    object.__setattr__(message, "__pydantic_extra__", {})
    object.__setattr__(message, "__pydantic_private__", None)
    return message
