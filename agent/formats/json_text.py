"""JSON inside other text, which comes in pieces."""

from __future__ import annotations


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
