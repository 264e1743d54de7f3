"""The state every graph shares: one list of messages, with LangGraph's own reducer.

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

from typing import Annotated, Literal, NotRequired

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from typing_extensions import (
    TypedDict,  # pydantic, which makes the graph's JSON schema, needs this one on 3.11
)

from graphs.summary import Summary

Overflow = Literal["trim", "summarise"]
"""What becomes of the oldest turns of a conversation that is longer than the model's context."""


class Conversation(TypedDict):
    """What goes into a graph and comes out of it."""

    messages: Annotated[list[AnyMessage], add_messages]
    """The whole conversation; trimming never touches it."""


class ConversationState(Conversation):
    """What the nodes of a graph see."""

    summary: NotRequired[Summary | None]
    """The beginning of the conversation in a few sentences, where the graph was built to summarise."""

    remaining_steps: RemainingSteps
    """Supersteps left under ``recursion_limit``; supplied by LangGraph, never stored."""
