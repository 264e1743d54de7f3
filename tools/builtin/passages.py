"""Text files cut into passages that can be found and cited: by heading and paragraph, with their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEADING = re.compile(r" {0,3}#{1,6}\s+(.+?)\s*#*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Some lines of a file."""

    source: str
    """Path of the file."""

    first: int
    """Number of its first line, from 1."""

    last: int
    """Number of its last line."""

    heading: str
    """The heading that it stands under; empty if there is none."""

    text: str
    """The lines."""

    @property
    def place(self) -> str:
        """How it is cited: ``guide.md:12-20``."""
        return f"{self.source}:{self.first}" + (f"-{self.last}" if self.last > self.first else "")


def passages(text: str, source: str, *, size: int) -> Iterator[Passage]:
    """Cut a text into passages of about ``size`` characters.

    A passage begins at each Markdown heading, and after a blank line once it is long enough; a line that is
    longer than ``size`` is a passage of its own, cut where it must be.
    """
    lines: list[str] = []
    heading, begin, fenced, held = "", 1, False, 0

    def finished(last: int) -> Iterator[Passage]:
        while lines and not lines[-1].strip():
            lines.pop()
            last -= 1
        body = "\n".join(lines)
        if body:
            for start in range(0, len(body), size * 2) if len(lines) == 1 else (0,):
                part = body[start : start + size * 2] if len(lines) == 1 else body
                if part.strip():
                    yield Passage(source=source, first=begin, last=last, heading=heading, text=part)
        lines.clear()

    number = 0
    for number, line in enumerate(text.splitlines(), start=1):
        fenced ^= _FENCE.match(line) is not None
        title = None if fenced else _HEADING.match(line)
        full = (held >= size and not line.strip()) or held + len(line) > size * 2
        if title or full:
            yield from finished(number - 1)
        if title:
            heading = title[1]
        if not lines:
            begin, held = number, 0
            if not line.strip():  # passages begin with text
                continue
        lines.append(line)
        held += len(line)
    yield from finished(number)
