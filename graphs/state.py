"""The state every graph shares: one list of messages, with the reducer of LangGraph.

``langgraph.channels.DeltaChannel`` was considered for it: checkpoints then hold only what a step wrote. It is
not used, for three reasons. It is beta, stored form included, and conversations must outlive versions. Its
value can be read only by replaying writes through the reducer, so every reader of a checkpoint would need the
graph. And a saver that keeps lists element by element, as the one in this product does, grows with what was
said either way. LangGraph reads threads of one kind with the other, so the choice can be changed later.

Everything else a node wants to know (model calls in this turn, unanswered calls, repeats) is computed from
the messages in :mod:`graphs.turn`. There are no counters to go stale when somebody edits or forks a thread.
The summary of a long conversation is the one exception: writing it costs a call of the model, so it is kept,
with the id of the message up to which it holds.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal, NotRequired, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import (
    TypedDict,  # pydantic, which makes the graph's JSON schema, needs this one on 3.11
)

from graphs.summary import Summary

Overflow = Literal["trim", "summarise"]
"""What becomes of the oldest turns of a conversation that is longer than the model's context."""


def summarises(overflow: Overflow) -> bool:
    """Whether the oldest turns are summarised.

    Raises:
        ValueError: ``overflow`` is none.
    """
    if overflow not in ("trim", "summarise"):
        raise ValueError(f"overflow={overflow!r}: give 'trim' or 'summarise'")
    return overflow == "summarise"


_WHOLE = frozenset({HumanMessage, AIMessage, SystemMessage, ToolMessage})


def joined(stored: Any, written: Any) -> list[AnyMessage]:
    """What ``add_messages`` gives, in a small part of its time where all that is written is new.

    That is the case at nearly every step, and LangGraph reduces several times in one. Whatever replaces,
    removes or has to be converted is left to ``add_messages``.
    """
    if (
        isinstance(stored, list)
        and isinstance(written, list)
        and _WHOLE.issuperset(map(type, stored))
        and _WHOLE.issuperset(map(type, written))
    ):
        for message in written:
            if message.id is None:
                message.id = str(uuid.uuid4())
        unknown = {None, *[message.id for message in written]}
        if len(unknown) == len(written) + 1 and unknown.isdisjoint([message.id for message in stored]):
            return [*stored, *written]
    return cast("list[AnyMessage]", add_messages(stored, written))


class Conversation(TypedDict):
    """What goes into a graph and comes out of it."""

    messages: Annotated[list[AnyMessage], joined]
    """The whole conversation; trimming never touches it."""


class ConversationState(Conversation):
    """What the nodes of a graph see."""

    summary: NotRequired[Summary | None]
    """The beginning of the conversation in a few sentences, where the graph was built to summarise."""

    remaining_steps: RemainingSteps
    """Supersteps left under ``recursion_limit``; supplied by LangGraph, never stored."""
