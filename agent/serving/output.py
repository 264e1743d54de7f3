"""What a server's output says: how far its start is, and why it ended.

The lines are vLLM's log, with a few of ours between them (:func:`stage_line`, :func:`failure_line`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

_OURS = "[vllm-agent]"
_STAGE = f"{_OURS} stage: "
_FAILURE = f"{_OURS} failed: "

# Stages in their order, with the share of a start that is over when each begins (the loading of weights and
# the warm-up take most of it) and the mark of vLLM's log that begins it. A stage without a mark is told by
# ours.
_STAGES: tuple[tuple[str, float, str | None], ...] = (
    ("importing", 0.0, None),
    ("checking flags", 0.25, None),
    ("loading", 0.3, r"Starting to load model"),
    ("loading weights", 0.4, r"Loading safetensors checkpoint shards|Loading weights (?:from|using)"),
    ("warming up", 0.7, r"Loading weights took|Model loading took|init engine|GPU KV cache size"),
    ("compiling", 0.75, r"torch\.compile takes|Dynamo bytecode transform time|Compiling a graph for"),
    ("capturing graphs", 0.85, r"Capturing CUDA graph"),
    ("opening the server", 0.95, r"Supported tasks|Starting vLLM server on|Application startup complete"),
)
_SHARES = {name: share for name, share, _ in _STAGES}
_MARKS = [(re.compile(mark), name) for name, _, mark in _STAGES if mark is not None]
_PERCENT = re.compile(r"(\d{1,3})%")
_WITH_PERCENT = ("loading weights", "capturing graphs")

_PREFIX = re.compile(r"^(?:\([\w ]+ pid=\d+\) )?(?:(?:INFO|WARNING|ERROR|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_LEVEL = re.compile(r"^(?:\([\w ]+ pid=\d+\) )?(WARNING|ERROR|CRITICAL)\b")
_ERROR = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception))(?:: (.*))?$")
# What follows from another failure, and says nothing about it.
_GENERIC = (
    "Engine core initialization failed",
    "EngineDeadError",
    "Engine core proc",
    "EngineCore encountered",
)


@dataclass(frozen=True)
class Stage:
    """How far a start is."""

    name: str
    """What happens now."""

    share: float
    """How much of the whole is over, 0 to 1; an estimate."""

    percent: int | None = None
    """How much of this stage is over, where it is told."""

    def __str__(self) -> str:
        return self.name if self.percent is None else f"{self.name}, {self.percent} %"


@dataclass(frozen=True)
class Failure:
    """Why a server ended."""

    kind: str
    """Name of one of our errors."""

    message: str


def stage_line(stage: str) -> str:
    """What a server writes when a stage of its start begins."""
    return f"{_STAGE}{stage}"


def failure_line(kind: str, message: str) -> str:
    """What a server writes before it ends with an error."""
    return f"{_FAILURE}{json.dumps([kind, message])}"


class StartReader:
    """Follows a server's output and knows how far its start is."""

    def __init__(self) -> None:
        self.stage = Stage("importing", 0.0)

    def feed(self, line: str) -> bool:
        """Take one line (a redrawn bar is one too); say whether it changed :attr:`stage`."""
        found = self._read(line)
        if found is None or found.share < self.stage.share or found == self.stage:
            return False
        self.stage = found
        return True

    def _read(self, line: str) -> Stage | None:
        if line.startswith(_STAGE):
            name = line.removeprefix(_STAGE).strip()
            return Stage(name, _SHARES.get(name, self.stage.share))
        for mark, name in reversed(_MARKS):
            if mark.search(line):
                return self._at(name, line)
        return None

    @staticmethod
    def _at(name: str, line: str) -> Stage:
        share, percent = _SHARES[name], _PERCENT.search(line)
        if percent is None or name not in _WITH_PERCENT:
            return Stage(name, share)
        following = min(other for other in (*_SHARES.values(), 1.0) if other > share)
        done = min(100, int(percent[1]))
        return Stage(name, share + (following - share) * done / 100, done)


def failure(lines: Iterable[str]) -> Failure | None:
    """Find why the server ended: our own last word, or else the root of vLLM's errors; None if none is told.

    Args:
        lines: Its output.
    """
    ours: Failure | None = None
    errors: list[str] = []
    for line in lines:
        if line.startswith(_FAILURE):
            ours = Failure(*json.loads(line.removeprefix(_FAILURE)))
        elif found := _ERROR.match(_PREFIX.sub("", line)):
            text = f"{found[1]}: {found[2]}" if found[2] else found[1]
            if not any(word in text for word in _GENERIC):
                errors.append(text)
    if ours is not None and not any(word in ours.message for word in _GENERIC):
        return ours
    return Failure("EngineStartError", errors[-1]) if errors else ours


def worth_showing(line: str) -> bool:
    """Whether a line is a warning or an error, for somebody who watches a server that runs."""
    return _LEVEL.match(line) is not None


def plain(line: str) -> str:
    """A line of vLLM's log without time, process and place."""
    return _PREFIX.sub("", line).strip()
