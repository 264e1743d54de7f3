"""The supervisor graph: a model that hands tasks to workers, each of them a graph of its own.

::

    start ─▶ model ╌╌▶ worker (one task per call, in parallel) ─▶ model …
               ├╌╌▶ tools   tools of the supervisor's own
               ├╌╌▶ model   the calls could not be read: it is told, and tries again
               └╌╌▶ end     it answered

A worker is a tool to the model: its name, what it is good at, and a task in words. So routing is decoded
under the same grammar as every tool call, several workers may work at once, and the conversation stays one
that every template understands. What a worker does stands in its own subgraph; its answer comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.constants import START
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer, Send
from pydantic import BaseModel, Field

from graphs.compiling import compiled
from graphs.events import emit
from graphs.limits import TurnLimits
from graphs.nodes.callable import way
from graphs.nodes.model import ModelNode
from graphs.nodes.tools import ToolNode, ToolTask, send_calls
from graphs.nodes.worker import Graph, worker_node
from graphs.react import ReactGraph, build_react_graph
from graphs.repair import error_result
from graphs.routing import MODEL, TOOLS, WAYS, after_answer
from graphs.state import Conversation, ConversationState, Overflow, summarises
from graphs.toolset import prepare_tools
from tools.arguments import check_arguments
from tools.errors import ToolInputError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TAKEN = frozenset({MODEL, TOOLS})


class Task(BaseModel):
    """What a worker is asked to do."""

    task: str = Field(description="What to do, in full: the worker sees nothing else of this conversation.")


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A graph that a supervisor may give tasks to.

    Raises:
        ValueError: The name cannot be one of a node and of a tool.
    """

    name: str
    description: str
    """What it is good at, for the supervisor's model."""

    graph: Graph
    """Takes and gives ``messages``. Built without a saver, it is stored in the supervisor's thread."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ValueError(
                f"a worker cannot be called {self.name!r}: use letters, digits, _ and -, and neither "
                f"{' nor '.join(sorted(_TAKEN))}"
            )


WorkerLike = Worker | tuple[str, str, Graph] | Graph
"""A worker; its name, description and graph; or a graph that is called by its own name."""


def build_supervisor_graph(
    *,
    model: BaseChatModel,
    workers: Iterable[WorkerLike] | None = None,
    tools: Iterable[BaseTool | Callable[..., Any]] = (),
    checkpointer: Checkpointer = None,
    first: Literal["any", "auto"] = "any",
    system_prompt: str | None = None,
    max_steps: int = 10,
    max_repeats: int = 2,
    max_malformed: int = 2,
    max_context_tokens: int | None = None,
    overflow: Overflow = "trim",
    name: str = "supervisor",
) -> ReactGraph:
    """Build a model that routes tasks to workers.

    Args:
        model: Decides who does what, and answers in the end.
        workers: Graphs with names and descriptions. Without any, there are two: ``doer``, which has
            ``tools``, and ``writer``, which has none.
        tools: Tools of the supervisor's own; without ``workers``, the doer's.
        checkpointer: Any LangGraph saver; workers are stored in it too.
        first: ``"any"`` makes the model choose a worker or a tool before it answers; with ``"auto"`` it may
            answer a question by itself.
        system_prompt: Stands first in every request of the supervisor; it is not stored.
        max_steps: Model calls in one turn that may use workers and tools.
        max_repeats: How often a round of calls may be repeated in one turn with the same results.
        max_malformed: Retries in a row after answers in which no call could be read.
        max_context_tokens: Tokens that a request may take.
        overflow: Whether turns that do not fit are trimmed or summarised.
        name: The graph's name in traces and in LangGraph Studio.

    Raises:
        ValueError: A limit is out of range, ``overflow`` or ``first`` is none, two workers or tools have one
            name, or a name is not allowed.
    """
    if first not in ("any", "auto"):
        raise ValueError(f"first={first!r}: give 'any' or 'auto'")
    if workers is None:
        team, tools = default_workers(model=model, tools=tools), ()
    else:
        team = [as_worker(each) for each in workers]
    own = prepare_tools(tools)
    handles = {worker.name: _handle(worker) for worker in team}
    offered = prepare_tools([*own, *(_handle(worker) for worker in team)])
    ask = ModelNode(
        model=model,
        tools=offered,
        system_prompt=system_prompt,
        limits=TurnLimits(max_steps=max_steps, max_repeats=max_repeats, max_malformed=max_malformed),
        max_context_tokens=max_context_tokens,
        summarise=summarises(overflow),
        first_choice=None if first == "auto" else first,
    )

    def after_model(state: ConversationState) -> list[Send] | str:
        sends = send_calls(state, TOOLS)
        if not sends:
            return after_answer(state)
        return [Send(_home(send.arg, handles), send.arg) for send in sends]

    builder = StateGraph(ConversationState, input_schema=Conversation, output_schema=Conversation)
    builder.add_node(MODEL, ask.as_node())
    builder.add_node(TOOLS, ToolNode(tools=own).as_node())
    ways: dict[Hashable, str] = dict(WAYS)
    for worker in team:
        builder.add_node(worker.name, _node(worker, handles[worker.name]))
        builder.add_edge(worker.name, MODEL)
        ways[worker.name] = worker.name
    builder.add_edge(START, MODEL)
    builder.add_conditional_edges(MODEL, way(after_model), ways)
    builder.add_edge(TOOLS, MODEL)
    return compiled(builder, checkpointer=checkpointer, name=name)


def default_workers(
    *, model: BaseChatModel, tools: Iterable[BaseTool | Callable[..., Any]] = ()
) -> list[Worker]:
    """A team for those who name none: one worker that has the tools, and one that has words alone."""
    prepared = prepare_tools(tools)
    can = f", with the tools {', '.join(tool.name for tool in prepared)}" if prepared else ""
    return [
        Worker(
            name="doer",
            description=f"Computes and looks things up{can}.",
            graph=build_react_graph(model=model, tools=prepared, name="doer"),
        ),
        Worker(
            name="writer",
            description="Writes, explains and summarises in words; has no tools.",
            graph=build_react_graph(model=model, name="writer"),
        ),
    ]


def as_worker(given: WorkerLike) -> Worker:
    """A :class:`Worker` from what users write.

    Raises:
        ValueError: Its name is not allowed.
    """
    if isinstance(given, Worker):
        return given
    if isinstance(given, CompiledStateGraph):
        return Worker(name=given.name, description=f"The graph {given.name!r}.", graph=given)
    name, description, graph = given
    return Worker(name=name, description=description, graph=graph)


def _handle(worker: Worker) -> BaseTool:
    """The worker as the supervisor's model sees it. It is run by its node and never as a tool."""

    def run(task: str) -> str:
        raise NotImplementedError(f"{worker.name} is run by its node")

    return StructuredTool.from_function(
        run, name=worker.name, description=worker.description, args_schema=Task
    )


def _home(task: ToolTask, handles: Mapping[str, BaseTool]) -> str:
    name = task["call"]["name"]
    return name if name in handles else TOOLS


def _node(worker: Worker, handle: BaseTool) -> Any:
    def begin(task: ToolTask) -> str | Mapping[str, Sequence[ToolMessage]]:
        call = task["call"]
        try:
            check_arguments(handle, call["args"])
        except ToolInputError as error:
            return {"messages": [error_result(call["id"], call["name"], str(error))]}
        emit(
            {
                "type": "worker_started",
                "id": call["id"] or "",
                "name": worker.name,
                "task": call["args"]["task"],
            }
        )
        return str(call["args"]["task"])

    def end(task: ToolTask, answer: str) -> Mapping[str, Sequence[ToolMessage]]:
        call = task["call"]
        emit({"type": "worker_finished", "id": call["id"] or "", "name": worker.name})
        text = answer or "(no answer)"
        return {"messages": [ToolMessage(text, tool_call_id=call["id"] or "", name=worker.name)]}

    return worker_node(worker.graph, name=worker.name, begin=begin, end=end)
