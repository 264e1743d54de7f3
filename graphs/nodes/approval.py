"""The node that asks a person about tool calls before any of them runs.

It stands between the model and the tools, and asks about all calls of an answer at once. LangGraph runs an
interrupted node again from its beginning when the answer comes, so nothing here acts on the world: decisions
become changes of the conversation, and the tools' own tasks run what is left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool
from langgraph.types import interrupt

from graphs import prompts
from graphs.decisions import (
    REQUEST,
    ApprovalRequest,
    Approve,
    Decision,
    DecisionError,
    Edit,
    Reject,
    Respond,
    WaitingCall,
    read_decision,
    with_approvals,
)
from graphs.events import emit
from graphs.repair import error_result, with_arguments
from graphs.state import ConversationState
from graphs.turn import last_answer, open_calls
from tools.arguments import check_arguments, tool_schema
from tools.errors import ToolInputError
from tools.policy import policy_of

_DECISIONS = ["approve", "edit", "reject", "respond"]


@dataclass(frozen=True, kw_only=True)
class ApprovalNode:
    """Asks which of the model's tool calls may run."""

    tools: Sequence[BaseTool]
    """The tools that may be called."""

    asks: Callable[[ToolCall], bool]
    """Whether a person is asked about a call. Tools whose policy wants approval are always asked about."""

    def as_node(self) -> Runnable[ConversationState, dict[str, list[BaseMessage]]]:
        """This node for ``StateGraph.add_node``."""
        return RunnableLambda(self.run, name="approval")

    def waiting(self, messages: Sequence[BaseMessage]) -> list[ToolCall]:
        """Calls of the latest answer that need a decision.

        Not those of unknown tools or with arguments that do not fit: they cannot run in any case, and the
        model is told why without anybody being asked.
        """
        return [call for call in open_calls(messages) if self._is_asked(call)]

    def run(self, state: ConversationState) -> dict[str, list[BaseMessage]]:
        """Ask until every call is decided, and write the decisions into the conversation.

        Raises:
            GraphInterrupt: Nobody has decided yet.
        """
        messages = state["messages"]
        answer, calls = last_answer(messages), self.waiting(messages)
        if answer is None or not calls:
            return {"messages": []}
        decisions: dict[str, Decision] = {}
        problems: list[str] = []
        while open_ := [call for call in calls if call["id"] not in decisions]:
            given = interrupt(self._request(open_, problems))
            understood, problems = self._read(given, open_)
            decisions |= understood
        for call in calls:
            decision = decisions[call["id"] or ""].type
            emit({"type": "call_decided", "id": call["id"] or "", "name": call["name"], "decision": decision})
        return {"messages": _applied(answer, calls, decisions)}

    @cached_property
    def _by_name(self) -> Mapping[str, BaseTool]:
        return {tool.name: tool for tool in self.tools}

    def _is_asked(self, call: ToolCall) -> bool:
        tool = self._by_name.get(call["name"])
        if tool is None or not (policy_of(tool).approval or self.asks(call)):
            return False
        return self._problem(call, call["args"]) is None

    def _problem(self, call: ToolCall, args: Mapping[str, Any]) -> str | None:
        try:
            check_arguments(self._by_name[call["name"]], args)
        except ToolInputError as error:
            return str(error)
        return None

    def _request(self, calls: Sequence[ToolCall], problems: list[str]) -> ApprovalRequest:
        described = [
            WaitingCall(
                id=call["id"] or "",
                name=call["name"],
                args=call["args"],
                description=self._by_name[call["name"]].description,
                parameters=tool_schema(self._by_name[call["name"]]),
            )
            for call in calls
        ]
        return ApprovalRequest(type=REQUEST, calls=described, problems=problems, decisions=_DECISIONS)

    def _read(self, given: Any, calls: Sequence[ToolCall]) -> tuple[dict[str, Decision], list[str]]:
        """What of ``given`` can be used for ``calls``, and what is wrong with the rest."""
        by_id = {call["id"] or "": call for call in calls}
        if not isinstance(given, Mapping):
            known = ", ".join(by_id)
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
                problems.append(f"{call_id!r} is not waiting; the ids are: {', '.join(by_id)}")
            elif isinstance(decision, Edit) and (problem := self._problem(call, decision.args)):
                problems.append(f"{call_id}: {problem}")
            else:
                decisions[call_id] = decision
        return decisions, problems


def _applied(
    answer: AIMessage, calls: Sequence[ToolCall], decisions: Mapping[str, Decision]
) -> list[BaseMessage]:
    """What changes: the answer with its approved calls, and results of those that do not run."""
    edits = {key: dict(choice.args) for key, choice in decisions.items() if isinstance(choice, Edit)}
    answer = with_arguments(answer, edits)
    approved = [
        call for call in answer.tool_calls if isinstance(decisions.get(call["id"] or ""), Approve | Edit)
    ]
    results: list[BaseMessage] = []
    for call in calls:
        match decisions[call["id"] or ""]:
            case Reject(reason):
                results.append(error_result(call["id"], call["name"], prompts.rejected_call(reason)))
            case Respond(text):
                results.append(ToolMessage(text, tool_call_id=call["id"] or "", name=call["name"]))
    return [with_approvals(answer, approved), *results]
