"""A conversation as Markdown to read, JSON for programs, JSONL for data sets; and back from the last two."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.messages import BaseMessage, ToolMessage, message_to_dict, messages_from_dict

from agent.errors import ConfigurationError
from agent.persistence import given
from agent.persistence.reports import Transcript

FORMAT_VERSION: Final = 1
_SPEAKERS: Final = {"human": "You", "ai": "Assistant", "system": "System", "tool": "Tool result"}


def markdown(transcript: Transcript) -> str:
    """For reading: one heading per turn, tool calls and results as code blocks."""
    parts = [f"# {transcript.title or transcript.id}", f"*{transcript.id}, {transcript.updated_at[:16]}*"]
    for message in transcript.messages:
        parts.append(f"## {_speaker(message)}")
        text = str(message.text)
        if text:
            parts.append(_fenced(text) if isinstance(message, ToolMessage) else text)
        for call in getattr(message, "tool_calls", ()):
            arguments = json.dumps(call["args"], ensure_ascii=False, indent=2, default=str)
            parts.append(f"Calls `{call['name']}` ({call['id']}):")
            parts.append(_fenced(arguments, language="json"))
    return "\n\n".join(parts) + "\n"


def as_json(transcript: Transcript) -> str:
    """One document with everything that :func:`parse` needs."""
    return json.dumps(_document(transcript), ensure_ascii=False, indent=2, default=str) + "\n"


def jsonl(transcript: Transcript) -> str:
    """One message a line, each with the conversation's id."""
    lines = [
        json.dumps({"id": transcript.id, **message_to_dict(message)}, ensure_ascii=False, default=str)
        for message in transcript.messages
    ]
    return "\n".join(lines) + "\n" if lines else ""


FORMATS: Final[dict[str, Callable[[Transcript], str]]] = {
    "markdown": markdown,
    "json": as_json,
    "jsonl": jsonl,
}


@dataclass(frozen=True)
class Parsed:
    """What an exported conversation says."""

    messages: list[BaseMessage]
    title: str | None = None
    tags: tuple[str, ...] = ()


def parse(text: str) -> Parsed:
    """Read exported JSON or JSONL.

    Raises:
        ConfigurationError: It is neither.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return _parse_lines(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error) from error
    return _parse_document(document)


def _parse_lines(text: str) -> Parsed:
    try:
        # By this character alone: others at which a text may be cut into lines stand in JSON as they are.
        lines = [json.loads(line) for line in text.split("\n") if line.strip()]
        if not lines:
            raise ValueError("there is nothing in it")
        if len(ids := {str(line["id"]) for line in lines if line.get("id") is not None}) > 1:
            raise ValueError(f"it has the messages of {len(ids)} conversations; import each by itself")
        return Parsed(_messages(lines))
    except RecursionError as error:
        raise _unreadable(error) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"not a conversation exported as JSON or JSONL ({error}): export with format 'json'"
        ) from error


def _unreadable(error: Exception) -> ConfigurationError:
    """What is JSON by its grammar, and more than Python reads."""
    deep = isinstance(error, RecursionError)
    what = "it is nested too deeply" if deep else f"it has a number that is too long ({error})"
    return ConfigurationError(f"not an exported conversation: {what}")


def _parse_document(document: Any) -> Parsed:
    try:
        if "messages" not in document and "type" in document:  # JSONL of one line
            return Parsed(_messages([document]))
        version = document.get("format", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ConfigurationError(f"exported in format {version}; this version reads {FORMAT_VERSION}")
        title = document.get("title")
        return Parsed(
            _messages(document["messages"]),
            title=None if title is None else given.words("title", title),
            tags=tuple(given.tag(str(tag)) for tag in document.get("tags") or ()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"not an exported conversation: {error!r} is wrong with it") from error


def _document(transcript: Transcript) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "id": transcript.id,
        "title": transcript.title,
        "created_at": transcript.created_at,
        "updated_at": transcript.updated_at,
        "status": transcript.status,
        "tags": list(transcript.tags),
        "messages": [message_to_dict(message) for message in transcript.messages],
    }


def _messages(documents: Sequence[Any]) -> list[BaseMessage]:
    return messages_from_dict([{"type": each["type"], "data": each["data"]} for each in documents])


def _speaker(message: BaseMessage) -> str:
    speaker = _SPEAKERS.get(message.type, message.type)
    return f"{speaker} ({message.name})" if message.name else speaker


def _fenced(text: str, *, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
