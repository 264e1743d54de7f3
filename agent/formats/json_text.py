"""JSON inside other text, which comes in pieces."""

from __future__ import annotations


class JsonScanner:
    """Finds the end of a JSON object or array in text that comes in pieces and begins with its bracket."""

    def __init__(self) -> None:
        self._depth = 0
        self._inside_string = False
        self._escaped = False

    def scan(self, text: str) -> int | None:
        """Return the position after the closing bracket; None while it is open."""
        for position, character in enumerate(text):
            if self._inside_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._inside_string = False
            elif character == '"':
                self._inside_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return position + 1
        return None
