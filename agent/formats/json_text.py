"""JSON inside other text, which comes in pieces."""

from __future__ import annotations

import re

DEEPEST = 100
"""Levels of brackets in the arguments of a call: savers, checks and templates give up at some hundreds."""

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def too_deep(text: str) -> bool:
    """Whether JSON is nested deeper than :data:`DEEPEST`."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", _TEXT.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            return True
    return False


class JsonScanner:
    """Finds the end of a JSON object or array in text that comes in pieces and begins with its bracket."""

    def __init__(self) -> None:
        self.open = ""
        """The brackets that are open, the innermost one last."""
        self.inside_string = False
        self.escaped = False
        """Whether the next character is escaped by a backslash before it."""

    def scan(self, text: str) -> int | None:
        """Return the position after the closing bracket; None while it is open."""
        for position, character in enumerate(text):
            if self.inside_string:
                if self.escaped:
                    self.escaped = False
                elif character == "\\":
                    self.escaped = True
                elif character == '"':
                    self.inside_string = False
            elif character == '"':
                self.inside_string = True
            elif character in "{[":
                self.open += character
            elif character in "}]":
                self.open = self.open[:-1]
                if not self.open:
                    return position + 1
        return None
