"""What is observed: a run of a graph, and what happens in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["run", "step", "model", "tool", "checkpoint"]
Outcome: TypeAlias = Literal["ok", "error", "interrupted"]


@dataclass(kw_only=True, eq=False)
class Activity:
    """Something that takes time; what is known at its end is filled in then."""

    kind: Kind
    """A ``run`` of a graph; a ``step`` (one node of it); a call of the ``model`` or of a ``tool``; the
    writing of a ``checkpoint``."""

    name: str
    """Of the graph, the node, the model, the tool, or the saver's method."""

    parent: Activity | None = None
    """What it is a part of."""

    thread_id: str | None = None
    """The conversation."""

    call_id: str | None = None
    """The id of a tool call."""

    started: int = field(default_factory=time.time_ns)
    """Nanoseconds since 1970."""

    first_token: int | None = None
    """When a streamed answer began, likewise; ``None`` if it was not streamed."""

    ended: int | None = None
    """Likewise; ``None`` while it goes on."""

    outcome: Outcome = "ok"
    """``interrupted``: a person is asked, and the run goes on later."""

    error: str | None = None
    """The class of the exception."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Those of the input that vLLM had in its prefix cache."""

    finish_reason: str | None = None
    """Why the model stopped: ``stop``, ``length``, ``tool_calls``."""

    notes: dict[str, Any] = field(default_factory=dict)
    """What a sink keeps with it from its begin to its end, by the sink's name."""

    @property
    def run(self) -> Activity:
        """The outermost activity around this one; itself if there is none."""
        return self if self.parent is None else self.parent.run

    @property
    def seconds(self) -> float:
        """How long it took, or takes already."""
        return ((self.ended or time.time_ns()) - self.started) / 1e9


class Sink(Protocol):
    """Writes activities down. It is called from any thread, must be quick, and must not raise."""

    def begin(self, activity: Activity) -> None:
        """It has begun."""

    def end(self, activity: Activity) -> None:
        """It has ended; its record is complete."""
