"""A piece of text that may be a call: where it begins, where it ends, and whether it can be one at all."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.formats.json_text import JsonScanner

FENCE = "```"

_CLOSERS: Mapping[str, str] = {
    "<tool_call>": "</tool_call>",
    "<tool_calls>": "</tool_calls>",
    "<function_call>": "</function_call>",
    "<|tool_call|>": "<|/tool_call|>",
    "<|python_tag|>": "<|eom_id|>",
    "<tools>": "</tools>",
    "[TOOL_CALLS]": "",
    "TOOL_CALL:": "",
    "functools": "",
    FENCE: FENCE,
}
"""What families of models put around their calls, so whoever sees it knows that a call was meant."""

OPENERS = tuple(_CLOSERS)
"""What may open a call, beside the bracket of bare JSON."""

_LANGUAGES = ("", "json", "tool_call", "tool_calls", "function_call")
"""Names of code blocks that may hold calls."""

_FIRST_KEYS = ("name", "arguments", "parameters", "function", "tool_calls", "type", "id")
"""Keys with which a call in JSON begins."""

BARE = re.compile(r'(?:\[\s*)?(?:\Z|\{\s*(?:\Z|"))')
"""How bare JSON begins that may be a call, or a list of calls; it is looked for in the text so far."""

_BETWEEN = re.compile(r"[\s,;]*")
_LINE_END = re.compile(r"[ \t]*[,;.]?[ \t]*")


@dataclass(frozen=True)
class FoundCall:
    """A call that stood in the text."""

    name: str | None
    """The tool's name, None where even that is not readable."""

    arguments: str
    """Its arguments as JSON; where the call is broken, its text as it stands."""

    error: str = ""
    """What makes it invalid; empty for a call that can be executed."""


class CallReading(Protocol):
    """Reads calls from JSON, knowing which tools are bound."""

    def read(self, text: str, *, meant: bool) -> list[FoundCall] | None:
        """Return the calls in one piece of JSON, None where it is something else."""
        ...


class Verdict(enum.Enum):
    """What is known of a candidate."""

    OPEN = "more text is needed"
    CLOSED = "it is whole, and has to be read"
    NOT_HERE = "nothing that could be a call begins here"
    OTHER_JSON = "it is JSON, and no call"


@dataclass
class Candidate:
    """Text from an opener, or from a bracket, on."""

    opener: str
    """One of :data:`OPENERS`, empty for bare JSON."""

    text: str = ""
    end: int = 0
    """Where it ends in :attr:`text`, once it is closed."""

    _spans: list[tuple[int, int]] = field(default_factory=list)  # of its pieces of JSON
    _start: int | None = None  # of the piece that is being read
    _scanner: JsonScanner = field(default_factory=JsonScanner)
    _scanned: int = 0

    def feed(self, text: str) -> None:
        """Take more text."""
        self.text += text

    def verdict(self, *, final: bool) -> Verdict:
        """Say what is known by now; with ``final`` no more text will come, so something always is."""
        if self._start is None and not self._spans:
            head = self._head()
            if head is None:
                return Verdict.NOT_HERE if final else Verdict.OPEN
            if head < 0:
                return Verdict.NOT_HERE
            self._begin(head)
        while True:
            if self._start is not None and (verdict := self._read_piece(final=final)):
                return verdict
            if verdict := self._after_piece(final=final):
                return verdict

    def calls(self, known: CallReading) -> list[FoundCall]:
        """Return the calls of a closed candidate; an empty list where it is text."""
        found: list[FoundCall] = []
        for start, end in self._spans:
            calls = known.read(self.text[start:end], meant=self.opener not in ("", FENCE))
            if calls is None:
                return []
            found += calls
        return found

    def _head(self) -> int | None:
        """Return where the JSON begins, -1 where none does, None where more text is needed."""
        place = len(self.opener)
        if self.opener == FENCE:
            newline = self.text.find("\n", place)
            language = self.text[place : None if newline < 0 else newline].strip()
            if newline < 0:
                return None if any(name.startswith(language) for name in _LANGUAGES) else -1
            if language not in _LANGUAGES:
                return -1
            place = newline
        rest = self.text[place:].lstrip()
        if not rest:
            return None
        return len(self.text) - len(rest) if rest[0] in "{[" else -1

    def _begin(self, start: int) -> None:
        self._start = self._scanned = start
        self._scanner = JsonScanner()

    def _read_piece(self, *, final: bool) -> Verdict | None:
        """Read on to the end of the piece of JSON; None when it is reached."""
        assert self._start is not None
        if self.opener in ("", FENCE) and (verdict := self._promise(self._start, final=final)):
            return verdict
        end = self._scanner.scan(self.text[self._scanned :])
        if end is None:
            self._scanned = len(self.text)
            if not final:
                return Verdict.OPEN
            end = len(self.text) - self._scanned
        self._scanned += end
        self._spans.append((self._start, self._scanned))
        self._start = None
        return None

    def _promise(self, start: int, *, final: bool) -> Verdict | None:
        """Look at the first key of JSON that nothing marks as a call, so that other JSON is not held back."""
        rest = self.text[start : start + 1].replace("[", "") + self.text[start + 1 :]
        rest = rest.lstrip()
        waiting = Verdict.NOT_HERE if final else Verdict.OPEN
        if not rest:
            return waiting
        if rest[0] != "{":
            return Verdict.NOT_HERE
        inside = rest[1:].lstrip()
        if not inside:
            return waiting
        if inside[0] != '"':
            return Verdict.NOT_HERE
        key, closed, _ = inside[1:].partition('"')
        if closed:
            return None if key in _FIRST_KEYS else Verdict.OTHER_JSON
        if any(known.startswith(key) for known in _FIRST_KEYS):
            return waiting
        return Verdict.OTHER_JSON

    def _after_piece(self, *, final: bool) -> Verdict | None:
        """Look at what follows a piece of JSON; None where another piece does."""
        rest = self.text[self._scanned :]
        if not self.opener:
            return self._after_bare(rest, final=final)
        closer = _CLOSERS[self.opener]
        between = _BETWEEN.match(rest)
        following = rest[between.end() if between else 0 :]
        if closer and rest.lstrip().startswith(closer):
            return self._close(len(self.text) - len(rest.lstrip()) + len(closer))
        if closer and not final and (not following or closer.startswith(following)):
            return Verdict.OPEN
        if closer and following[:1] in ("{", "["):
            self._begin(len(self.text) - len(following))
            return None
        if self.opener == FENCE and following:
            return Verdict.OTHER_JSON  # a block of code with more in it than calls
        return self._close(self._scanned)

    def _after_bare(self, rest: str, *, final: bool) -> Verdict:
        """Bare JSON is a call where it ends its line: one that is quoted in a sentence is none."""
        blank = _LINE_END.match(rest)
        following = rest[blank.end() if blank else 0 :]
        if not following and not final:
            return Verdict.OPEN
        if not following or following[0] in "\r\n{[":
            return self._close(self._scanned)
        return self._close(self._scanned, text=True)

    def _close(self, end: int, *, text: bool = False) -> Verdict:
        self.end = end
        if text:
            self._spans = []
        return Verdict.CLOSED
