"""The plan-and-execute graph: plan, do one step after the other, plan again, answer.

::

    start ─▶ plan ─▶ step (a react graph of its own) ─▶ replan ╌╌▶ step …
               ╰╌╌▶ model (the answer) ◀╌╌ nothing is left ╯  ─▶ end

A small context goes further this way: each step sees its own task and what earlier steps came to, not the
whole conversation, and the conversation holds the question and the answer alone. Plan and results stand in
the state, where they can be looked at and edited between steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.constants import END, START
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from graphs import prompts
from graphs.compiling import compiled
from graphs.context import fit_context, side_by_side, token_budget, well_formed, with_system_prompt
from graphs.events import emit
from graphs.nodes.callable import node, way
from graphs.nodes.decision import Decision
from graphs.nodes.model import ModelNode, appended
from graphs.nodes.worker import worker_node
from graphs.react import build_react_graph
from graphs.routing import MODEL
from graphs.state import Conversation, ConversationState

_PLAN: Final = "plan"
_STEP: Final = "step"
_REPLAN: Final = "replan"


class StepResult(TypedDict):
    """A step that was done."""

    step: str
    result: str


class PlanState(ConversationState):
    """The conversation, and how far the current question has come."""

    plan: list[str]
    """Steps that are left, in order."""

    results: list[StepResult]
    """Steps that were done for the current question."""


class Plan(BaseModel):
    """A plan of the steps that answer the user's question."""

    steps: list[str] = Field(description="What to do, one short instruction per step, in order.")


class Replan(BaseModel):
    """What is left to do after the steps so far."""

    finished: bool = Field(description="Whether the question can be answered from the results so far.")
    steps: list[str] = Field(description="The steps that are still needed; none if finished.")


PlanGraph = CompiledStateGraph[PlanState, None, Conversation, PlanState]


def build_plan_execute_graph(
    *,
    model: BaseChatModel,
    tools: Iterable[BaseTool | Callable[..., Any]] = (),
    checkpointer: Checkpointer = None,
    executor: CompiledStateGraph[Any, Any, Any, Any] | None = None,
    system_prompt: str | None = None,
    max_plan_steps: int = 6,
    max_steps: int = 10,
    max_context_tokens: int | None = None,
    name: str = "plan_execute",
) -> PlanGraph:
    """Build an agent that plans before it acts.

    Args:
        model: Plans, does the steps and answers.
        tools: What a step may use.
        checkpointer: Any LangGraph saver; the steps are stored in it too, call by call.
        executor: The graph that does one step, on ``messages``; by default a react graph with ``tools``.
        system_prompt: Stands first in every request; it is not stored.
        max_plan_steps: Steps done for one question at most, those of later plans included.
        max_steps: Model calls in one step that may use tools.
        max_context_tokens: Tokens that a request may take.
        name: The graph's name in traces and in LangGraph Studio.

    Raises:
        ValueError: A limit is out of range, or two tools have one name.
    """
    if max_plan_steps < 1:
        raise ValueError(f"max_plan_steps={max_plan_steps!r}: must be 1 or more")
    if executor is None:
        executor = build_react_graph(
            model=model,
            tools=tools,
            system_prompt=system_prompt,
            max_steps=max_steps,
            max_context_tokens=max_context_tokens,
            name=_STEP,
        )
    planner = _Planner(model, system_prompt, max_plan_steps, max_context_tokens)
    answer = ModelNode(
        model=model,
        system_prompt=system_prompt,
        max_context_tokens=max_context_tokens,
        briefing=lambda state: prompts.results_of_steps(planner.results(state)),
    )
    builder = StateGraph(PlanState, input_schema=Conversation, output_schema=PlanState)
    builder.add_node(_PLAN, planner.plan_node())
    builder.add_node(_STEP, worker_node(executor, name=_STEP, begin=planner.begin, end=_end))
    builder.add_node(_REPLAN, planner.replan_node())
    builder.add_node(MODEL, answer.as_node())
    builder.add_edge(START, _PLAN)
    builder.add_conditional_edges(_PLAN, way(_next), {"steps": _STEP, "nothing to do": MODEL})
    builder.add_edge(_STEP, _REPLAN)
    builder.add_conditional_edges(_REPLAN, way(_next), {"steps": _STEP, "nothing to do": MODEL})
    builder.add_edge(MODEL, END)
    return compiled(builder, checkpointer=checkpointer, name=name)


@dataclass(frozen=True)
class _Planner:
    """Plans and replans."""

    model: BaseChatModel
    system_prompt: str | None
    max_plan_steps: int
    max_context_tokens: int | None

    def plan_node(self) -> Runnable[PlanState, dict[str, Any]]:
        decision = Decision(model=self.model, form=Plan, fallback=lambda: Plan(steps=[]))

        def run(state: PlanState, config: RunnableConfig) -> dict[str, Any]:
            return self._planned(decision.ask(self._request(state, prompts.PLAN), config), state)

        async def arun(state: PlanState, config: RunnableConfig) -> dict[str, Any]:
            # On a thread: the model may read its tokenizer, or ask a server, to count tokens.
            request = await asyncio.to_thread(self._request, state, prompts.PLAN)
            return self._planned(await decision.aask(request, config), state)

        return node(run, arun, name=_PLAN)

    def replan_node(self) -> Runnable[PlanState, dict[str, Any]]:
        decision = Decision(model=self.model, form=Replan, fallback=lambda: Replan(finished=True, steps=[]))

        def run(state: PlanState, config: RunnableConfig) -> dict[str, Any]:
            if len(state["results"]) >= self.max_plan_steps:
                return {"plan": []}
            return self._replanned(decision.ask(self._review(state), config), state)

        async def arun(state: PlanState, config: RunnableConfig) -> dict[str, Any]:
            if len(state["results"]) >= self.max_plan_steps:
                return {"plan": []}
            review = await asyncio.to_thread(self._review, state)
            return self._replanned(await decision.aask(review, config), state)

        return node(run, arun, name=_REPLAN)

    def begin(self, state: PlanState) -> str:
        """The task of the next step."""
        step = state["plan"][0]
        emit({"type": "step_started", "step": step})
        return prompts.step_task(_question(state), self.results(state), step)

    def results(self, state: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Steps with what they came to, no longer than a request has room for."""
        done = state.get("results") or ()
        budget = token_budget(self.model, self.max_context_tokens)
        texts = side_by_side([each["result"] for each in done], budget)
        return [(each["step"], text) for each, text in zip(done, texts, strict=True)]

    def _review(self, state: PlanState) -> list[BaseMessage]:
        return self._request(state, prompts.replan(self.results(state), state["plan"]))

    def _request(self, state: PlanState, instruction: str) -> list[BaseMessage]:
        conversation = with_system_prompt(well_formed(state["messages"]), self.system_prompt)
        budget = token_budget(self.model, self.max_context_tokens)
        return fit_context(appended(conversation, instruction), model=self.model, budget=budget).messages

    def _planned(self, plan: Plan, state: PlanState) -> dict[str, Any]:
        steps = _worded(plan.steps)[: self.max_plan_steps] or [_question(state)]
        emit({"type": "planned", "steps": steps})
        return {"plan": steps, "results": []}

    def _replanned(self, replan: Replan, state: PlanState) -> dict[str, Any]:
        left = self.max_plan_steps - len(state["results"])
        done = {result["step"] for result in state["results"]}
        steps = [] if replan.finished else [step for step in _worded(replan.steps) if step not in done][:left]
        emit({"type": "planned", "steps": steps})
        return {"plan": steps}


def _end(state: PlanState, answer: str) -> Mapping[str, Any]:
    step, *left = state["plan"]
    emit({"type": "step_finished", "step": step})
    return {"plan": left, "results": [*state["results"], StepResult(step=step, result=answer)]}


def _next(state: PlanState) -> str:
    return "steps" if state["plan"] else "nothing to do"


def _question(state: PlanState) -> str:
    asked = [message for message in state["messages"] if isinstance(message, HumanMessage)]
    return asked[-1].text if asked else ""


def _worded(steps: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(step.strip() for step in steps if step.strip()))
