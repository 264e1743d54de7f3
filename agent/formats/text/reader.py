"""Reads calls out of generated text, piece by piece.

However the text is split into pieces, the same content and the same calls come out.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

from agent.formats.json_text import JsonScanner

MARKER = "TOOL_CALL:"

# The head of a call in the order that the grammar and the prompt prescribe, so that its arguments can be
# passed on while they are still being written.
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_ANY_NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.)*)"')

Delta = dict[str, Any]


def new_call_id() -> str:
    """Return an identity for a call that is unique among all conversations."""
    return f"call_{uuid.uuid4().hex[:24]}"


class CallReader:
    """Turns generated text into content deltas and tool-call deltas.

    Args:
        new_id: Makes the identity of each call.
    """

    def __init__(self, new_id: Callable[[], str] = new_call_id) -> None:
        self._new_id = new_id
        self._buffer = ""
        self._space = ""  # white space that is content only if more text follows
        self._said_something = False
        self._inside: _OpenCall | None = None
        self.calls = 0

    def feed(self, text: str) -> list[Delta]:
        """Take the next piece of text and return what it completes."""
        self._buffer += text
        deltas: list[Delta] = []
        while self._advance(deltas):
            pass
        return deltas

    def finish(self) -> list[Delta]:
        """Say that the text is over and return what is left.

        A call that was not finished is passed on as it is: its arguments are no JSON, so that it becomes an
        invalid call for whoever reads it.
        """
        deltas: list[Delta] = []
        if self._inside is None:
            self._say(self._buffer, deltas)
        else:
            deltas += self._inside.abandon(self._buffer)
            self._inside = None
        self._buffer = ""
        return deltas

    def _advance(self, deltas: list[Delta]) -> bool:
        """Take one step; False when more text is needed."""
        if self._inside is not None:
            self._buffer, done, made = self._inside.feed(self._buffer)
            deltas += made
            if done:
                self._inside = None
            return done and bool(self._buffer)
        start = self._buffer.find(MARKER)
        if start < 0:
            keep = _partial_marker(self._buffer)
            self._say(self._buffer[: len(self._buffer) - keep], deltas)
            self._buffer = self._buffer[len(self._buffer) - keep :]
            return False
        rest = self._buffer[start + len(MARKER) :].lstrip()
        if not rest:
            self._say(self._buffer[:start], deltas)
            self._buffer = self._buffer[start:]
            return False
        if rest[0] != "{":  # talk about the marker, not a call
            self._say(self._buffer[: start + len(MARKER)], deltas)
            self._buffer = self._buffer[start + len(MARKER) :]
            return True
        self._say(self._buffer[:start], deltas)
        self._buffer = rest
        self._inside = _OpenCall(self.calls, self._new_id())
        self.calls += 1
        self._space = ""
        return True

    def _say(self, text: str, deltas: list[Delta]) -> None:
        if not text:
            return
        stripped = text.rstrip()
        if not stripped:
            self._space += text
            return
        said = self._space + stripped
        if not self._said_something:
            said = said.lstrip()
            self._said_something = True
        self._space = text[len(stripped) :]
        deltas.append({"content": said})


class _OpenCall:
    """One call object that is being read."""

    def __init__(self, index: int, identity: str) -> None:
        self._index = index
        self._id = identity
        self._named = False
        self._scanner = JsonScanner()
        self._text = ""
        self._outer_open = False

    def feed(self, text: str) -> tuple[str, bool, list[Delta]]:
        """Read on; return the text that is left, whether the call is over, and its deltas."""
        if self._outer_open:
            return self._close_outer(text)
        if not self._named:
            self._text += text
            head = _HEAD.match(self._text)
            if head is None:
                return self._whole()
            self._named = True
            text, self._text = self._text[head.end() :], ""
            made = [self._delta(id=self._id, name=_unquoted(head[1]), arguments="")]
        else:
            made = []
        end = self._scanner.scan(text)
        body = text if end is None else text[:end]
        if body:
            made.append(self._delta(arguments=body))
        if end is None:
            return "", False, made
        self._outer_open = True
        rest, done, more = self._close_outer(text[end:])
        return rest, done, made + more

    def abandon(self, text: str) -> list[Delta]:
        """The text ended inside this call."""
        if self._named:
            return []  # its arguments stay unfinished, or only the outer bracket is missing
        return [self._unreadable(self._text + text)]

    def _close_outer(self, text: str) -> tuple[str, bool, list[Delta]]:
        rest = text.lstrip()
        if not rest:
            return "", False, []
        return (rest[1:] if rest[0] == "}" else rest), True, []

    def _whole(self) -> tuple[str, bool, list[Delta]]:
        """The head is not (yet) in the usual form: wait for the object's end and read it whole."""
        end = JsonScanner().scan(self._text)
        if end is None:
            return "", False, []
        body, rest = self._text[:end], self._text[end:]
        try:
            call = json.loads(body)
            name, arguments = call["name"], call.get("arguments", call.get("parameters", {}))
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        except (ValueError, KeyError, AttributeError, RecursionError):
            return rest, True, [self._unreadable(body)]
        if not isinstance(name, str):
            return rest, True, [self._unreadable(body)]
        return rest, True, [self._delta(id=self._id, name=name, arguments=text)]

    def _unreadable(self, body: str) -> Delta:
        # The whole object goes where the arguments would stand, cut so that it is no JSON object: whoever
        # parses it finds an invalid call, with all of its text.
        name = _ANY_NAME.search(body)
        arguments = body if not _is_json(body) else f"{body}!"
        return self._delta(id=self._id, name=name[1] if name else "unknown", arguments=arguments)

    def _delta(self, *, arguments: str, id: str | None = None, name: str | None = None) -> Delta:
        call: dict[str, Any] = {"index": self._index, "function": {"arguments": arguments}}
        if id is not None:
            call.update(id=id, type="function")
            call["function"]["name"] = name
        return {"tool_calls": [call]}


def _unquoted(literal: str) -> str:
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:  # an escape that JSON does not have
        return literal[1:-1]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):  # the latter where it is nested a thousand deep
        return False
    return True


def _partial_marker(text: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of a marker."""
    for length in range(min(len(MARKER) - 1, len(text)), 0, -1):
        if MARKER.startswith(text[-length:]):
            return length
    return 0
