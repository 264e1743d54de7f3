"""What a person decides about a tool call, and how decisions travel to a graph that waits for them.

A graph waits with one interrupt for all calls of an answer, and takes one mapping from tool-call id to
decision. LangGraph can also deliver a bare value to whichever interrupt comes first, and lists by position:
with several calls at once such answers reach the wrong one. A mapping by id cannot, whoever writes it
(Python, the command line, LangGraph Studio or another program through ``langgraph-sdk``)::

    graph.invoke(decide({"call_1": Approve(), "call_2": Reject("too much")}), config)
    graph.invoke(Command(resume={"call_1": "approve", "call_2": {"type": "reject"}}), config)  # the same
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from langchain_core.messages import AIMessage, ToolCall
from langgraph.types import Command, Interrupt, StateSnapshot

from graphs.turn import canonical_args, digest_of

REQUEST: Literal["approval"] = "approval"
"""The ``type`` of an interrupt's value that asks for decisions."""

_RECORD = "approvals"
"""Where the answer that made the calls keeps what was approved, in its ``response_metadata``."""


@dataclass(frozen=True)
class Approve:
    """Run the call as it stands."""

    type: Literal["approve"] = field(default="approve", init=False)


@dataclass(frozen=True)
class Edit:
    """Run the call with other arguments; the conversation then shows these as the model's."""

    args: Mapping[str, Any]
    """All arguments, not only the changed ones."""

    type: Literal["edit"] = field(default="edit", init=False)


@dataclass(frozen=True)
class Reject:
    """Do not run the call, and tell the model so."""

    reason: str = ""
    """Told to the model as well."""

    type: Literal["reject"] = field(default="reject", init=False)


@dataclass(frozen=True)
class Respond:
    """Do not run the call: the person's own words are its result."""

    text: str

    type: Literal["respond"] = field(default="respond", init=False)


Decision = Approve | Edit | Reject | Respond

Waiting = StateSnapshot | Mapping[str, Any] | Sequence[Interrupt[Any]]
"""What tells which interrupts wait."""


class WaitingCall(TypedDict):
    """One call that waits for a decision, as it stands in the interrupt's value."""

    id: str
    """The tool-call id, by which the decision is given. A call that was cut off once more after it had been
    allowed to run again has ``#2`` behind its id, and so on, so that no decision counts twice. Where calls of
    several graphs that wait at once have one id, :func:`waiting_calls` adds the ids of their interrupts."""

    name: str
    args: dict[str, Any]
    description: str
    """What the tool does, in its own words."""

    parameters: dict[str, Any]
    """JSON schema of the arguments, for those who edit them."""

    warning: NotRequired[str]
    """What to know first; only there if the call was under way when a process died, and may have taken
    effect. To approve is then to run it again, to reject to give it up, and to respond to say what it came
    to."""


class ApprovalRequest(TypedDict):
    """The value of an interrupt that asks for decisions."""

    type: Literal["approval"]
    calls: list[WaitingCall]
    problems: list[str]
    """What was wrong with the decisions given so far; what was right is kept and not asked for again."""
    decisions: list[str]
    """The types of decision that may be given for each call."""


class DecisionError(ValueError):
    """A decision cannot be understood; the message says what may be given."""


def decide(decisions: Mapping[str, Decision], *, to: Waiting | None = None) -> Command[Any]:
    """The input that goes on with a waiting graph.

    Args:
        decisions: By tool-call id. Calls left out are asked for again, and nothing runs before all are
            decided.
        to: What waits, as for :func:`waiting_calls`. Needed where several graphs wait at once, as the workers
            of a supervisor may: LangGraph then wants to know which of them a decision is for.

    Raises:
        DecisionError: A decision is for a call that does not wait; only where ``to`` is given.
    """
    sent = {call_id: asdict(decision) for call_id, decision in decisions.items()}
    if to is None:
        return Command(resume=sent)
    by_interrupt: dict[str, dict[str, Any]] = {}
    known = _named(to)
    for name, interrupt, call in known:
        if name in sent:
            by_interrupt.setdefault(interrupt.id, {})[call["id"]] = sent.pop(name)
    if sent:
        waiting = ", ".join(name for name, _, _ in known) or "none"
        raise DecisionError(f"no decision is awaited for {', '.join(sent)}; what waits: {waiting}")
    return Command(resume=by_interrupt)


def waiting_calls(waiting: Waiting) -> list[WaitingCall]:
    """The calls that wait for a decision; none if there are none.

    Args:
        waiting: What ``graph.get_state(config)`` or ``graph.invoke(…)`` returned, or interrupts themselves.
    """
    return [{**call, "id": name} for name, _, call in _named(waiting)]


def _named(waiting: Waiting) -> list[tuple[str, Interrupt[Any], WaitingCall]]:
    """What waits, by ids that are unique even where graphs that wait beside each other number alike."""
    known = [(interrupt, call) for interrupt in _requests(waiting) for call in interrupt.value["calls"]]
    times = Counter(call["id"] for _, call in known)
    return [
        (call["id"] if times[call["id"]] == 1 else f"{call['id']}@{interrupt.id}", interrupt, call)
        for interrupt, call in known
    ]


def waiting_problems(waiting: Waiting) -> list[str]:
    """What was wrong with the decisions that were given for what waits; see :func:`waiting_calls`."""
    return [problem for interrupt in _requests(waiting) for problem in interrupt.value["problems"]]


def _requests(waiting: Waiting) -> list[Interrupt[Any]]:
    if isinstance(waiting, StateSnapshot):
        interrupts: Iterable[Interrupt[Any]] = waiting.interrupts
    elif isinstance(waiting, Mapping):
        interrupts = waiting.get("__interrupt__", ())
    else:
        interrupts = waiting
    return [each for each in interrupts if isinstance(each.value, dict) and each.value.get("type") == REQUEST]


def read_decision(value: Any) -> Decision:
    """A decision from what somebody sent: a record, its fields as plain data, or ``"approve"``.

    Raises:
        DecisionError: It is none.
    """
    if isinstance(value, Decision):
        return value
    fields = {"type": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    match fields:
        case {"type": "approve"}:
            return Approve()
        case {"type": "edit", "args": Mapping() as args}:
            return Edit(dict(args))
        case {"type": "reject"}:
            return Reject(str(fields.get("reason") or ""))
        case {"type": "respond", "text": str(text)}:
            return Respond(text)
    raise DecisionError(
        f'{value!r} is no decision; give "approve", "reject", {{"type": "reject", "reason": "…"}}, '
        '{"type": "edit", "args": {…}} or {"type": "respond", "text": "…"}'
    )


def with_approvals(answer: AIMessage, approved: Iterable[ToolCall]) -> AIMessage:
    """``answer`` with a record of which of its calls were approved, and with which arguments.

    The record is part of the conversation, so it survives whatever the conversation survives. It holds
    digests: a call that is changed afterwards is a call that nobody approved.
    """
    record = {call["id"]: _digest(call) for call in approved}
    metadata = {**answer.response_metadata, _RECORD: record}
    return answer.model_copy(update={"response_metadata": metadata})


def is_approved(answer: AIMessage | None, call: ToolCall) -> bool:
    """Whether a person approved ``call`` of ``answer`` exactly as it stands."""
    record = answer.response_metadata.get(_RECORD) if answer else None
    return isinstance(record, Mapping) and record.get(call["id"]) == _digest(call)


def _digest(call: ToolCall) -> str:
    return digest_of(call["name"], canonical_args(call["args"]))
