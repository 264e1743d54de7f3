"""Asking a person about tool calls until every one is decided.

LangGraph runs an interrupted node again from its beginning when an answer comes, and gives it the answers so
far in their order. So nothing here acts on the world, and what was understood of earlier answers is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool
from langgraph.types import interrupt

from graphs import prompts
from graphs.decisions import (
    REQUEST,
    ApprovalRequest,
    Decision,
    DecisionError,
    Edit,
    WaitingCall,
    read_decision,
)
from tools.arguments import tool_schema

_ABOUT_REPEATS = ("approve", "reject", "respond")

Objection = Callable[[WaitingCall, Decision], str | None]
"""What is wrong with a decision about a call; ``None`` if nothing is."""


def ask(
    calls: Sequence[WaitingCall],
    *,
    types: Sequence[str],
    objection: Objection,
    settled: Collection[str] = (),
) -> dict[str, Decision]:
    """Decisions about all of ``calls``, by their ids.

    Args:
        calls: What to ask about.
        types: The types of decision that may be given.
        objection: Checks a decision; one that is objected to is asked for again.
        settled: Ids of earlier questions; answers to them are passed over.

    Raises:
        GraphInterrupt: Nobody has decided yet.
    """
    decisions: dict[str, Decision] = {}
    problems: list[str] = []
    while open_ := [call for call in calls if call["id"] not in decisions]:
        request = ApprovalRequest(type=REQUEST, calls=open_, problems=problems, decisions=list(types))
        given = interrupt(request)
        if isinstance(given, Mapping):
            given = {key: value for key, value in given.items() if key not in settled}
        understood, problems = _read(given, open_, objection)
        decisions |= understood
    return decisions


def ask_about_repeat(call: ToolCall, tool: BaseTool, *, attempt: int) -> Decision:
    """The decision about a call that was under way when a process died.

    Args:
        call: The call.
        tool: What it calls.
        attempt: Which of its attempts was cut off, from 1. LangGraph may deliver an old answer once more to a
            task that is run anew; as the number is a part of the id, what was decided about one attempt
            never counts for the next.

    Raises:
        GraphInterrupt: Nobody has decided yet.
    """
    described = described_call(call, tool)
    described["warning"] = prompts.ask_about_unknown_outcome(call["name"])
    *settled, described["id"] = [described["id"], *(f"{call['id']}#{n}" for n in range(2, attempt + 1))]
    decisions = ask([described], types=_ABOUT_REPEATS, objection=_no_edit, settled=settled)
    return decisions[described["id"]]


def _no_edit(call: WaitingCall, decision: Decision) -> str | None:
    if not isinstance(decision, Edit):
        return None
    return "its arguments cannot be changed, as it may have taken effect with these"


def described_call(call: ToolCall, tool: BaseTool) -> WaitingCall:
    """``call`` as a person reads it."""
    return WaitingCall(
        id=call["id"] or "",
        name=call["name"],
        args=call["args"],
        description=tool.description,
        parameters=tool_schema(tool),
    )


def _read(
    given: Any, calls: Sequence[WaitingCall], objection: Objection
) -> tuple[dict[str, Decision], list[str]]:
    """What of ``given`` can be used for ``calls``, and what is wrong with the rest."""
    by_id = {call["id"]: call for call in calls}
    known = ", ".join(by_id)
    if not isinstance(given, Mapping):
        return {}, [f"{given!r} is no mapping from tool-call id to decision; the ids are: {known}"]
    decisions: dict[str, Decision] = {}
    problems = []
    for call_id, value in given.items():
        try:
            decision = read_decision(value)
        except DecisionError as error:
            problems.append(f"{call_id}: {error}")
            continue
        call = by_id.get(call_id)
        if call is None:
            problems.append(f"{call_id!r} is not waiting; the ids are: {known}")
        elif problem := objection(call, decision):
            problems.append(f"{call_id}: {problem}")
        else:
            decisions[call_id] = decision
    return decisions, problems
