"""One task, answered in its conversation, however often it is begun."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from agent.app import GRAPH_KEY
from agent.batch.jobs import Task
from agent.errors import (
    DatabaseError,
    EngineClosedError,
    EngineDeadError,
    EngineStartError,
    ModelNotFoundError,
)
from agent.settings import Settings
from graphs.decisions import waiting_calls
from graphs.registry import GRAPHS
from graphs.turn import is_unfinished, last_answer

if TYPE_CHECKING:
    from agent.app import App, Snapshot

logger = logging.getLogger(__name__)

COMMON_TROUBLE = (EngineStartError, EngineClosedError, ModelNotFoundError, DatabaseError)
"""What would be wrong with every line alike: a batch stops there, and its lines stay to be run."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one task."""

    task: Task
    thread_id: str
    messages: Sequence[BaseMessage] = ()
    """The task's own, from its question on."""

    error: Mapping[str, str] | None = None
    """``type`` and ``message``; ``None`` if it was answered."""

    @property
    def answer(self) -> str | None:
        """The model's last words; ``None`` if it failed."""
        said = last_answer(self.messages) if self.error is None else None
        return said.text.strip() if said is not None else None

    @property
    def usage(self) -> UsageMetadata | None:
        """Tokens of the model's messages, together; ``None`` if none tells."""
        total: UsageMetadata | None = None
        for message in self.messages:
            if isinstance(message, AIMessage) and message.usage_metadata is not None:
                total = add_usage(total, message.usage_metadata)
        return total


class _WaitingError(Exception):
    """The conversation waits for a person."""


def settings_of(task: Task, settings: Settings) -> Settings:
    """The batch's settings, with what the task has in their place."""
    return replace(
        settings,
        graph=task.graph or settings.graph,
        system=task.system or settings.system,
        tools=settings.tools if task.tools is None else task.tools,
    )


class Answerer:
    """Answers tasks of one batch, any number at once.

    Args:
        app: The agent, open.
        batch: Names the batch.
    """

    def __init__(self, app: App, *, batch: str) -> None:
        self._app = app
        self._batch = batch
        self._variants: dict[tuple[Any, ...], App] = {}

    async def __call__(self, task: Task) -> Outcome:
        """Answer a task, or go on where an earlier process was cut off.

        Raises:
            EngineStartError, EngineClosedError, ModelNotFoundError, DatabaseError: No task is to blame.
        """
        thread_id = task.thread_id(self._batch)
        try:
            messages = await self._turn(task, thread_id)
        except COMMON_TROUBLE:
            raise
        except Exception as error:  # whatever one line meets, the others go on
            logger.debug("line %d failed", task.line, exc_info=True)
            kind = type(error).__name__.removeprefix("_")
            return Outcome(
                task=task, thread_id=thread_id, error={"type": kind, "message": str(error) or kind}
            )
        return Outcome(task=task, thread_id=thread_id, messages=messages)

    async def _turn(self, task: Task, thread_id: str) -> Sequence[BaseMessage]:
        try:
            return await self._run(task, thread_id)
        except EngineDeadError:
            # Another line may have killed it. The next call starts a new one, and what was done is kept.
            return await self._run(task, thread_id)

    async def _run(self, task: Task, thread_id: str) -> Sequence[BaseMessage]:
        app = self._variant(task)
        config = app.thread(thread_id)
        asked = self._asked(task)
        state = await app.graph.aget_state(config)
        begun = (state.metadata or {}).get(GRAPH_KEY, app.settings.graph)
        if isinstance(begun, str) and begun in GRAPHS and begun != app.settings.graph:
            # What a graph has begun, no other one can finish.
            other = self._variant(replace(task, graph=begun))
            await self._finish(other, await other.graph.aget_state(config), thread_id)
            state = await app.graph.aget_state(config)
        else:
            state = await self._finish(app, state, thread_id)
        if not _since(state, asked):
            question = HumanMessage(task.question, id=asked)
            state = await self._go_on(app, {"messages": [question]}, thread_id)
        return _since(state, asked)

    async def _finish(self, app: App, state: Snapshot, thread_id: str) -> Snapshot:
        if not is_unfinished(state):
            return state
        _check_waiting(state, app.settings.graph, thread_id)
        return await self._go_on(app, None, thread_id)

    async def _go_on(self, app: App, given: Mapping[str, Any] | None, thread_id: str) -> Snapshot:
        config = app.thread(thread_id)
        # "sync": the model's calls are on the disk before a tool starts; see `agent.cli.turns`. Nothing is
        # streamed: nobody watches, and a step of the graph per token would cost the engine's time.
        await app.graph.ainvoke(given, config, durability="sync")
        state = await app.graph.aget_state(config)
        _check_waiting(state, app.settings.graph, thread_id)
        return state

    def _asked(self, task: Task) -> str:
        return task.question_id(self._batch)

    def _variant(self, task: Task) -> App:
        key = (task.graph, task.system, task.tools)
        if key not in self._variants:
            self._variants[key] = self._app.variant(settings_of(task, self._app.settings))
        return self._variants[key]


def _since(state: Snapshot, message_id: str) -> Sequence[BaseMessage]:
    """The messages of one turn, from its question on; none if it was not asked."""
    found: list[BaseMessage] = []
    for message in state.values.get("messages", []):
        if isinstance(message, HumanMessage) and (found or message.id == message_id):
            if found:
                break
            found.append(message)
        elif found:
            found.append(message)
    return found


def _check_waiting(state: Snapshot, graph: str, thread_id: str) -> None:
    if not state.interrupts:
        return
    calls = waiting_calls(state)
    what = f"a decision about {', '.join(call['name'] for call in calls)}" if calls else "an answer"
    raise _WaitingError(
        f"the conversation waits for {what}: vllm-agent resume {thread_id} --graph {graph}, then "
        "run the batch again with --retry-failed"
    )
