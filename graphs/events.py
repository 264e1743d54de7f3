"""What graphs report while they run, on ``stream_mode="custom"``.

Plain dictionaries with a ``type``, so that they travel through LangGraph's server as JSON. Tools may write
events of their own to the same stream with ``get_stream_writer()``; readers skip types they don't know.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from langgraph.config import get_stream_writer

StopReason = Literal["max_steps", "recursion_limit", "repeated_calls", "malformed_calls"]
"""Why a turn was brought to its end before the model ended it itself."""


class ToolStarted(TypedDict):
    """A tool call begins."""

    type: Literal["tool_started"]
    id: str
    """The tool-call id."""
    name: str
    args: dict[str, Any]


class ToolFinished(TypedDict):
    """A tool call has its result."""

    type: Literal["tool_finished"]
    id: str
    name: str
    status: Literal["success", "error"]
    seconds: float
    """Time spent on this call, queueing and retries included; 0.0 if the result was already journalled."""
    replayed: bool
    """Whether the result came from the journal, without running the tool."""


class CallsRepaired(TypedDict):
    """Calls that an earlier run left without results were answered with errors."""

    type: Literal["calls_repaired"]
    ids: list[str]


class ContextTrimmed(TypedDict):
    """The model was sent less than the whole conversation, because its context is full."""

    type: Literal["context_trimmed"]
    dropped: int
    """Messages left out."""
    shortened: int
    """Tool results cut in the middle."""


class ContextSummarised(TypedDict):
    """The oldest turns were summarised, because the model's context is full."""

    type: Literal["context_summarised"]
    covered: int
    """Messages that the new summary took in."""


class TurnClosing(TypedDict):
    """The model is asked for its last answer in this turn, without tools."""

    type: Literal["turn_closing"]
    reason: StopReason


class CallDecided(TypedDict):
    """A person has decided about a tool call."""

    type: Literal["call_decided"]
    id: str
    name: str
    decision: Literal["approve", "edit", "reject", "respond"]


class WorkerStarted(TypedDict):
    """A supervisor has given a task to a worker."""

    type: Literal["worker_started"]
    id: str
    """The id of the call by which it did."""
    name: str
    task: str


class WorkerFinished(TypedDict):
    """A worker has answered."""

    type: Literal["worker_finished"]
    id: str
    name: str


class Planned(TypedDict):
    """The steps that are left to do."""

    type: Literal["planned"]
    steps: list[str]


class StepStarted(TypedDict):
    """A step of a plan begins."""

    type: Literal["step_started"]
    step: str


class StepFinished(TypedDict):
    """A step of a plan has its result."""

    type: Literal["step_finished"]
    step: str


class Retrieved(TypedDict):
    """Documents were looked for."""

    type: Literal["retrieved"]
    query: str
    found: int


class Graded(TypedDict):
    """Documents were judged."""

    type: Literal["graded"]
    kept: int
    dropped: int


GraphEvent = (
    ToolStarted
    | ToolFinished
    | CallsRepaired
    | ContextTrimmed
    | ContextSummarised
    | TurnClosing
    | CallDecided
    | WorkerStarted
    | WorkerFinished
    | Planned
    | StepStarted
    | StepFinished
    | Retrieved
    | Graded
)


def emit(event: GraphEvent) -> None:
    """Write ``event`` to the custom stream of the node that is running."""
    get_stream_writer()(event)
