"""Questions about a conversation, answered from its messages alone.

A *turn* is everything after the last message of the user. All functions are pure: the answers hold after a
resume, a fork or an edit, where a stored counter would not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    InvalidToolCall,
    ToolCall,
    ToolMessage,
)

if TYPE_CHECKING:
    from langgraph.types import StateSnapshot

Gaps = list[tuple[AIMessage, list[ToolCall | InvalidToolCall]]]
"""Answers with the calls in them that lack a result."""


# These three look at the name of the kind. ``isinstance`` on a Pydantic class asks its metaclass wherever the
# answer is no, which takes ten times as long, and conversations are walked at every step. Chunks have other
# names: the state holds none, its reducer makes whole messages of them.
def is_answer(message: BaseMessage) -> TypeGuard[AIMessage]:
    """Whether the model said this."""
    return message.type == "ai"


def is_result(message: BaseMessage) -> TypeGuard[ToolMessage]:
    """Whether a tool answered with this."""
    return message.type == "tool"


def is_question(message: BaseMessage) -> bool:
    """Whether the user said this."""
    return message.type == "human"


def is_unfinished(state: StateSnapshot) -> bool:
    """Whether a run of the graph was cut off there, or waits."""
    # ``state.next`` will not do: it leaves out a task that has its result when the process died before the
    # step that the task belongs to was closed.
    return bool(state.tasks)


def current_turn(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages after the user's last one."""
    for index in range(len(messages) - 1, -1, -1):
        if is_question(messages[index]):
            return list(messages[index + 1 :])
    return list(messages)


def model_calls(turn: Sequence[BaseMessage]) -> int:
    """How often the model has answered in this turn."""
    return sum(is_answer(message) for message in turn)


def last_answer(messages: Sequence[BaseMessage]) -> AIMessage | None:
    """The model's latest message, if there is one after the user's latest."""
    position = _last_answer(messages)
    return None if position is None else cast("AIMessage", messages[position])


def open_calls(messages: Sequence[BaseMessage]) -> list[ToolCall]:
    """Calls of the latest answer that have no result yet, in the order the model made them."""
    position = _last_answer(messages)
    if position is None:
        return []
    answer, answered = cast("AIMessage", messages[position]), _answered(messages[position + 1 :])
    return [call for call in answer.tool_calls if call["id"] not in answered]


def malformed_streak(turn: Sequence[BaseMessage]) -> int:
    """How many of the latest answers in a row held malformed calls and not one whole call."""
    streak = 0
    for message in reversed(turn):
        if is_answer(message):
            if not message.invalid_tool_calls or message.tool_calls:
                break
            streak += 1
    return streak


def repeats(turn: Sequence[BaseMessage]) -> int:
    """How often all that the latest round did had been done before, with the same results.

    A round is one answer with its tool results. The count is that of its least repeated call, so one new
    call among old ones is progress and gives 0; equal calls within one round count once.
    """
    rounds = _rounds(turn)
    if not rounds or not rounds[-1]:
        return 0
    earlier = Counter(outcome for outcomes in rounds[:-1] for outcome in outcomes)
    return min(earlier[outcome] for outcome in rounds[-1])


def used_call_ids(messages: Sequence[BaseMessage]) -> set[str]:
    """Every tool-call id of a conversation in which every call has its result."""
    return _answered(messages)


def calls_of(message: AIMessage) -> list[ToolCall | InvalidToolCall]:
    """All calls in an answer, whole ones first, then those that could not be read."""
    return [*message.tool_calls, *message.invalid_tool_calls]


def in_order(messages: Sequence[BaseMessage]) -> bool:
    """Whether each answer is followed at once by the results of its calls, all of them and in their order.

    Nearly every conversation is so, at nearly every step; then nothing in it has to be looked for.
    """
    expected: list[Any] = []  # calls of the latest answer that have no result yet, the next one last
    for message in cast("Sequence[Any]", messages):
        kind = message.type
        if kind == "tool":
            if not expected or expected.pop()["id"] != message.tool_call_id:
                return False
        elif expected:
            return False
        elif kind == "ai":
            expected = message.tool_calls[::-1]
            if message.invalid_tool_calls:
                expected[:0] = message.invalid_tool_calls[::-1]
    return not expected


def unanswered(messages: Sequence[BaseMessage]) -> Gaps:
    """Answers of the model, anywhere in the conversation, with those of their calls that have no result."""
    if in_order(messages):
        return []
    answered = _answered(messages)
    gaps: Gaps = []
    for answer in _answers(messages):
        if answer.tool_calls or answer.invalid_tool_calls:
            missing = [call for call in calls_of(answer) if call["id"] not in answered]
            if missing:
                gaps.append((answer, missing))
    return gaps


def canonical_args(args: Any) -> str:
    """Arguments as text that is equal exactly when they are."""
    return _CANONICAL.encode(args)


def digest_of(*parts: str) -> str:
    """A short digest of texts, the same before and after they were stored.

    Half of a surrogate pair, which a model may write, counts as what it is when it was stored: "?".
    """
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:16]


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=repr)


def _last_answer(messages: Sequence[BaseMessage]) -> int | None:
    """Where the model's latest message stands, if there is one after the user's latest."""
    for position in range(len(messages) - 1, -1, -1):
        if is_answer(messages[position]):
            return position
        if is_question(messages[position]):
            return None
    return None


def _answers(messages: Sequence[BaseMessage]) -> list[AIMessage]:
    return cast("list[AIMessage]", [message for message in messages if message.type == "ai"])


def _answered(messages: Sequence[BaseMessage]) -> set[str]:
    results = cast("list[ToolMessage]", [message for message in messages if message.type == "tool"])
    return {result.tool_call_id for result in results}


def _rounds(turn: Sequence[BaseMessage]) -> list[set[tuple[str, str, str]]]:
    results = {message.tool_call_id: message for message in turn if is_result(message)}
    rounds = []
    for message in turn:
        if is_answer(message):
            outcomes = set()
            for call in message.tool_calls:
                result = results.get(call["id"] or "")
                if result is not None:
                    text = f"{result.status}:{result.content!r}"
                    outcomes.add((call["name"], canonical_args(call["args"]), text))
            rounds.append(outcomes)
    return rounds
