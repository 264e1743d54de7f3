"""Recovery of calls that a parser missed and left in the text.

A model writes a call without the tags that its parser looks for, in a code fence, with another model's tags,
or at the end of its reasoning; the parser then takes it for text, and an agent would stop with JSON as its
answer. Such a call is taken out of the text where it names a bound tool and fits its schema. One that names
a bound tool and is cut off, broken or does not fit is invalid: it is never executed, and never lost. Whatever
else looks like JSON stays text, as it was written.

The text is read piece by piece, and what may be a call is held back until it is known. What is found is a
function of the text alone, not of the pieces, so a stream and a whole answer give the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agent.chat.candidates import BARE, FENCE, OPENERS, Candidate, FoundCall, Verdict
from agent.chat.missed import KnownTools
from agent.formats.json_text import JsonScanner

_INTERESTING = re.compile(r"[{\[<`fT]")
"""The first characters of everything that may open a call."""

_LONGEST = max(map(len, OPENERS))

_Segment: TypeAlias = "str | list[FoundCall]"


@dataclass
class Recovery:
    """Reads one answer and finds the calls in its text.

    Args:
        tools: The tools that may be called, in wire form.
    """

    tools: Sequence[Any]
    _known: KnownTools = field(init=False, repr=False)
    _buffer: str = field(default="", init=False)  # not yet decided
    _held: list[_Segment] = field(default_factory=list, init=False)  # decided, and not yet shown
    _before: str = field(default="", init=False)  # the character before the buffer
    _open: Candidate | None = field(default=None, init=False)  # may be a call
    _passing: JsonScanner | None = field(default=None, init=False)  # inside JSON that is none
    _in_fence: bool = field(default=False, init=False)  # inside a code block that is none
    _released: bool = field(default=False, init=False)
    _said_something: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._known = KnownTools(self.tools)

    def feed(self, text: str) -> str:
        """Take the next piece of the text, and return what of it can be shown already."""
        if self._released:
            return text
        self._buffer += text
        while self._advance(final=False):
            pass
        return self._shown()

    def release(self) -> str:
        """Say that the parser found a call after all: all that was held back is text. Return it."""
        raw = self._raw()
        self._clear()
        self._released = True
        return raw

    def finish(self) -> tuple[str, list[FoundCall]]:
        """Say that the text is over; return what was held back of it, and the calls in it."""
        if self._released:
            return "", []
        while self._advance(final=True):
            pass
        if self._open is not None or self._buffer:
            self._keep(self._take(len(self._buffer) + (len(self._open.text) if self._open else 0)))
        calls = [call for segment in self._held if isinstance(segment, list) for call in segment]
        text = "".join(segment for segment in self._held if isinstance(segment, str))
        if calls:  # the white space around a call was there for its sake
            text = text.rstrip() if self._said_something else text.strip()
        self._clear()
        return text, calls

    def last_calls(self) -> list[FoundCall]:
        """Say that the text is over; return the calls with which it ends, after all other text."""
        while self._advance(final=True):
            pass
        last: list[FoundCall] = []
        for segment in [*self._held, self._buffer]:
            if isinstance(segment, list):
                last += segment
            elif segment.strip():
                last = []
        self._clear()
        return last

    # -- steps ----------------------------------------------------------------------------------------------

    def _advance(self, *, final: bool) -> bool:
        """Take one step; False when more text is needed."""
        if not self._buffer and not (final and self._open):
            return False
        if self._open is not None:
            return self._decide(self._open, final=final)
        if self._passing is not None:
            return self._pass_json(self._passing)
        if self._in_fence:
            return self._pass_fence(final=final)
        return self._search(final=final)

    def _search(self, *, final: bool) -> bool:
        for match in _INTERESTING.finditer(self._buffer):
            place = match.start()
            opener = next((one for one in OPENERS if self._buffer.startswith(one, place)), "")
            left = len(self._buffer) - place
            if not opener and not final and left < _LONGEST:
                rest = self._buffer[place:]
                if any(one.startswith(rest) for one in OPENERS):
                    self._keep(self._take(place))  # perhaps the beginning of one
                    return False
            before = self._buffer[place - 1] if place else self._before
            bare = (not before or before.isspace()) and BARE.match(self._buffer, place)
            if opener or bare:
                self._keep(self._take(place))
                self._open = Candidate(opener=opener)
                return True
        self._keep(self._take(len(self._buffer)))
        return False

    def _decide(self, candidate: Candidate, *, final: bool) -> bool:
        candidate.feed(self._buffer)
        self._buffer = ""
        verdict = candidate.verdict(final=final)
        if verdict is Verdict.OPEN:
            return False
        self._open, text = None, candidate.text
        self._buffer = text
        if verdict is Verdict.NOT_HERE:  # only its first characters are settled
            self._keep(self._take(len(candidate.opener) or 1))
            self._in_fence = candidate.opener == FENCE
        elif verdict is Verdict.OTHER_JSON:
            self._in_fence = candidate.opener == FENCE
            if self._in_fence:
                self._keep(self._take(len(FENCE)))
            else:
                self._passing = JsonScanner()
        else:
            calls = candidate.calls(self._known)
            raw = self._take(candidate.end)
            if calls:
                self._held.append(_Calls(calls, raw))
            else:
                self._keep(raw)
        return True

    def _pass_json(self, scanner: JsonScanner) -> bool:
        end = scanner.scan(self._buffer)
        self._keep(self._take(len(self._buffer) if end is None else end))
        if end is not None:
            self._passing = None
        return end is not None

    def _pass_fence(self, *, final: bool) -> bool:
        end = self._buffer.find(FENCE)
        if end >= 0:
            self._keep(self._take(end + len(FENCE)))
            self._in_fence = False
            return True
        partial = 0 if final else next((n for n in (2, 1) if self._buffer.endswith(FENCE[:n])), 0)
        self._keep(self._take(len(self._buffer) - partial))
        return False

    # -- what is shown --------------------------------------------------------------------------------------

    def _take(self, length: int) -> str:
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        self._before = text[-1:] or self._before
        return text

    def _keep(self, text: str) -> None:
        if text:
            self._held.append(text)

    def _shown(self) -> str:
        """Take what need not be held back any longer: all text before a call, but for white space at its end.

        After a call everything waits: the parser may still find one, and then that one was text.
        """
        before = list(itertools.takewhile(lambda segment: isinstance(segment, str), self._held))
        text = "".join(segment for segment in before if isinstance(segment, str))
        shown = text.rstrip()
        space = [text[len(shown) :]] if len(shown) < len(text) else []
        self._held = [*space, *self._held[len(before) :]]
        self._said_something = self._said_something or bool(shown)
        return shown

    def _raw(self) -> str:
        held = [segment.raw if isinstance(segment, _Calls) else segment for segment in self._held]
        return "".join([*(part for part in held if isinstance(part, str)), *self._undecided()])

    def _undecided(self) -> list[str]:
        return [self._open.text if self._open else "", self._buffer]

    def _clear(self) -> None:
        self._held, self._buffer, self._open = [], "", None


class _Calls(list[FoundCall]):
    """The calls that one piece of text holds, with that text."""

    def __init__(self, calls: Sequence[FoundCall], raw: str) -> None:
        super().__init__(calls)
        self.raw = raw


def recover(text: str, tools: Sequence[Any]) -> tuple[str, list[FoundCall]]:
    """Find the calls in a whole text; return the text without them, and the calls."""
    recovery = Recovery(tools)
    shown = recovery.feed(text)
    rest, calls = recovery.finish()
    return shown + rest, calls


def recover_from_reasoning(reasoning: str, tools: Sequence[Any]) -> list[FoundCall]:
    """Find the calls with which a reasoning ends, in the place of an answer.

    A model that thinks weighs calls that it then does not make, so only those count that nothing follows.
    """
    recovery = Recovery(tools)
    recovery.feed(reasoning)
    return recovery.last_calls()
