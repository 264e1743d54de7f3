"""The react graph: a model that calls tools until it can answer.

::

    start ─▶ model ╌╌▶ tools (one task per call, in parallel) ─▶ model …
               ├╌╌▶ model   the calls could not be read: it is told, and tries again
               └╌╌▶ end     it answered, or a limit was met and it gave its last answer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.constants import START
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from graphs.compiling import compiled
from graphs.limits import TurnLimits
from graphs.nodes.callable import way
from graphs.nodes.model import ModelNode
from graphs.nodes.tools import ToolNode
from graphs.routing import MODEL, TOOLS, WAYS, after_answer
from graphs.state import Conversation, ConversationState, Overflow, summarises
from graphs.toolset import prepare_tools

ReactGraph = CompiledStateGraph[ConversationState, None, Conversation, Conversation]


def build_react_graph(
    *,
    model: BaseChatModel,
    tools: Iterable[BaseTool | Callable[..., Any]] = (),
    checkpointer: Checkpointer = None,
    system_prompt: str | None = None,
    max_steps: int = 10,
    max_repeats: int = 2,
    max_malformed: int = 2,
    max_context_tokens: int | None = None,
    overflow: Overflow = "trim",
    name: str = "react",
) -> ReactGraph:
    """Build an agent that calls tools until it can answer.

    Run it with LangGraph's ``invoke``, ``ainvoke``, ``stream`` or ``astream`` on
    ``{"messages": [...]}``, with ``{"configurable": {"thread_id": ...}}`` where there is a checkpointer.
    ``stream_mode="messages"`` gives tokens, ``"custom"`` the events of :mod:`graphs.events`.

    Whatever a tool does (raise, hang, return something odd, not exist), the model gets a message and the run
    goes on. When a limit is met, the model is asked for a last answer without tools; the reason stands in
    that answer's ``response_metadata["stopped_by"]``.

    Args:
        model: Any LangChain chat model. It is not touched before the first run.
        tools: LangChain tools, plain functions, or a ``ToolRegistry``. The model sees them sorted by
            name, so that the same tools make the same prompt, in whatever order they were found.
        checkpointer: Any LangGraph saver. If it has a ``journal`` (:class:`graphs.journal.Journal`), a tool
            call that finished is never run again, not even after a crash.
        system_prompt: Stands first in every request; it is not stored in the thread.
        max_steps: Model calls in one turn that may use tools.
        max_repeats: How often a round of calls may be repeated in one turn with the same results.
        max_malformed: Retries in a row after answers in which no tool call could be read.
        max_context_tokens: Tokens that a request may take; by default ``model.profile["max_input_tokens"]``,
            or what the model's server says.
            Longer conversations are cut for the request, never in the state.
        overflow: What happens to the oldest turns of a conversation that is too long: ``"trim"`` leaves them
            out, ``"summarise"`` has the model put them in a few sentences first.
        name: The graph's name in traces and in LangGraph Studio.

    Raises:
        ValueError: A limit is out of range, ``overflow`` is neither, or two tools have one name.
    """
    prepared = prepare_tools(tools)
    limits = TurnLimits(max_steps=max_steps, max_repeats=max_repeats, max_malformed=max_malformed)
    ask = ModelNode(
        model=model,
        tools=prepared,
        system_prompt=system_prompt,
        limits=limits,
        max_context_tokens=max_context_tokens,
        summarise=summarises(overflow),
    )
    builder = StateGraph(ConversationState, input_schema=Conversation, output_schema=Conversation)
    builder.add_node(MODEL, ask.as_node())
    builder.add_node(TOOLS, ToolNode(tools=prepared).as_node())
    builder.add_edge(START, MODEL)
    builder.add_conditional_edges(MODEL, way(after_answer), WAYS)
    builder.add_edge(TOOLS, MODEL)
    return compiled(builder, checkpointer=checkpointer, name=name)
