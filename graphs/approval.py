"""The approval graph: the react graph, with a person between the model and the tools.

::

    start ─▶ model ╌╌▶ approval (waits for decisions) ╌╌▶ tools (one task per call) ─▶ model …
               ├╌╌▶ tools   nothing in the answer needs a decision
               ├╌╌▶ model   the calls could not be read: it is told, and tries again
               └╌╌▶ end
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool
from langgraph.constants import START
from langgraph.graph import StateGraph
from langgraph.types import Checkpointer, Send

from graphs.compiling import compiled
from graphs.limits import TurnLimits
from graphs.nodes.approval import ApprovalNode
from graphs.nodes.callable import way
from graphs.nodes.model import ModelNode
from graphs.nodes.tools import ToolNode, send_calls
from graphs.react import ReactGraph
from graphs.routing import DONE, MODEL, TOOLS, WAYS, after_answer
from graphs.state import Conversation, ConversationState, Overflow, summarises
from graphs.toolset import prepare_tools

_APPROVAL: Final = "approval"
_ASK: Final = "needs approval"

Asks = Literal["all", "policy"] | Collection[str] | Callable[[ToolCall], bool]
"""Which calls a person is asked about: every call, those of tools whose policy says ``approval``, those of
the tools named, or those for which a function says so."""


def build_approval_graph(
    *,
    model: BaseChatModel,
    tools: Iterable[BaseTool | Callable[..., Any]] = (),
    checkpointer: Checkpointer = None,
    asks: Asks = "all",
    system_prompt: str | None = None,
    max_steps: int = 10,
    max_repeats: int = 2,
    max_malformed: int = 2,
    max_context_tokens: int | None = None,
    overflow: Overflow = "trim",
    name: str = "approval",
) -> ReactGraph:
    """Build an agent whose tool calls wait for a person.

    When the model calls tools, the graph interrupts once, with an
    :class:`~graphs.decisions.ApprovalRequest` that holds every call that needs a decision. Go on with
    :func:`~graphs.decisions.decide`, by tool-call id; nothing of an answer runs before all of it is decided.
    Decisions that are wrong or missing are asked for again, the others are kept.

    The graph may wait for as long as the saver keeps it, and in another process. What was approved becomes a
    part of the conversation, and the tools' tasks are those of the react graph: with a journal, an approved
    call is never run twice. If the process dies while a call runs, and its policy does not say
    ``idempotent``, the resumed run asks about it in the same way: approve to run it again, respond with what
    it came to, reject to give it up.

    Args:
        model: As for :func:`~graphs.react.build_react_graph`, like all that is not named here.
        tools: The same.
        checkpointer: Needed to wait: without one, LangGraph refuses to interrupt.
        asks: Which calls a person is asked about. Tools whose policy says ``approval`` always are.
        system_prompt: Stands first in every request; it is not stored in the thread.
        max_steps: Model calls in one turn that may use tools.
        max_repeats: How often a round of calls may be repeated in one turn with the same results.
        max_malformed: Retries in a row after answers in which no tool call could be read.
        max_context_tokens: Tokens that a request may take.
        overflow: Whether turns that do not fit are trimmed or summarised.
        name: The graph's name in traces and in LangGraph Studio.

    Raises:
        ValueError: A limit is out of range, two tools have one name, or ``overflow`` or ``asks`` is none.
    """
    prepared = prepare_tools(tools)
    ask = ModelNode(
        model=model,
        tools=prepared,
        system_prompt=system_prompt,
        limits=TurnLimits(max_steps=max_steps, max_repeats=max_repeats, max_malformed=max_malformed),
        max_context_tokens=max_context_tokens,
        summarise=summarises(overflow),
    )
    gate = ApprovalNode(tools=prepared, asks=_predicate(asks, prepared))

    def after_model(state: ConversationState) -> list[Send] | str:
        return _ASK if gate.waiting(state["messages"]) else after_answer(state)

    builder = StateGraph(ConversationState, input_schema=Conversation, output_schema=Conversation)
    builder.add_node(MODEL, ask.as_node())
    builder.add_node(_APPROVAL, gate.as_node())
    builder.add_node(TOOLS, ToolNode(tools=prepared, asks=True).as_node())
    builder.add_edge(START, MODEL)
    builder.add_conditional_edges(MODEL, way(after_model), {_ASK: _APPROVAL, **WAYS})
    builder.add_conditional_edges(_APPROVAL, way(_after_approval), {"approved": TOOLS, DONE: MODEL})
    builder.add_edge(TOOLS, MODEL)
    return compiled(builder, checkpointer=checkpointer, name=name)


def _after_approval(state: ConversationState) -> list[Send] | str:
    return send_calls(state, TOOLS) or DONE


def _predicate(asks: Asks, tools: Sequence[BaseTool]) -> Callable[[ToolCall], bool]:
    if callable(asks):
        return asks
    if asks == "all":
        return lambda call: True
    if asks == "policy":
        return lambda call: False  # the node asks about those by itself
    known = {tool.name for tool in tools}
    if isinstance(asks, str) or not known.issuperset(asks):
        raise ValueError(
            f"asks={asks!r}: give 'all', 'policy', a function, or names of tools ({', '.join(sorted(known))})"
        )
    names = frozenset(asks)
    return lambda call: call["name"] in names
