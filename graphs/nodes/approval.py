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
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from graphs import prompts
from graphs.decisions import Approve, Decision, Edit, Reject, Respond, WaitingCall, with_approvals
from graphs.events import emit
from graphs.nodes.asking import ask, described_call
from graphs.nodes.callable import node
from graphs.repair import error_result, with_arguments
from graphs.state import ConversationState
from graphs.turn import last_answer, open_calls
from tools.arguments import check_arguments
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
        return node(self.run, name="approval")

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
        described = [described_call(call, self._by_name[call["name"]]) for call in calls]
        decisions = ask(described, types=_DECISIONS, objection=self._objection)
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
        return self._problem(call["name"], call["args"]) is None

    def _problem(self, name: str, args: Mapping[str, Any]) -> str | None:
        try:
            check_arguments(self._by_name[name], args)
        except ToolInputError as error:
            return str(error)
        return None

    def _objection(self, call: WaitingCall, decision: Decision) -> str | None:
        if not isinstance(decision, Edit):
            return None
        return self._problem(call["name"], decision.args)


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
