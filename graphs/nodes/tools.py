"""The node that runs one tool call, and the routing that starts one task for each.

LangGraph stores every task's result by itself. With one task per call, a crash or an interrupt in one call
never runs its finished neighbours again; a saver with a journal (:mod:`graphs.journal`) also covers the
moment between a tool's end and the storing of its task.

A call that was under way when a process died has an outcome that nobody knows. Where people are asked, this
node interrupts and asks what is to become of it, unless it may be repeated without harm.

There is one body, a coroutine. Where there is a journal, synchronous runs wait for it on the loop that
``tools`` keeps for them; without one nothing in it has to be awaited but the tool, and :func:`tools.call`
knows which tools need that loop. So async tools work in both, and a connection that a tool keeps open stays
usable from call to call.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, TypedDict

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.types import Send

from graphs import prompts
from graphs.decisions import Reject, Respond, is_approved
from graphs.events import emit
from graphs.journal import CallJournal, is_paused, is_repeated, recorded
from graphs.nodes.asking import ask_about_repeat
from graphs.nodes.callable import node
from graphs.repair import error_result
from graphs.state import ConversationState
from graphs.turn import last_answer, open_calls
from tools.execution import ToolOutcome, acall, call, unknown_tool
from tools.policy import policy_of
from tools.private_loop import PRIVATE_LOOP, at_once

_RunTool = Callable[..., Awaitable[ToolOutcome]]


class ToolTask(TypedDict):
    """What one task of the tool node is sent."""

    call: ToolCall
    message_id: str
    """The id of the answer that made the call."""
    approved: NotRequired[bool]
    """Whether a person approved the call as it stands; missing in tasks stored by graphs that ask nobody."""


def send_calls(state: ConversationState, target: str) -> list[Send]:
    """One task for ``target`` per call of the latest answer that has no result."""
    answer = last_answer(state["messages"])
    message_id = (answer.id if answer else None) or ""
    return [
        Send(target, ToolTask(call=call, message_id=message_id, approved=is_approved(answer, call)))
        for call in open_calls(state["messages"])
    ]


@dataclass(frozen=True)
class _Result:
    """What one call came to."""

    outputs: tuple[Any, ...]
    """Tool messages, or the LangGraph commands that the tool returned."""

    replayed: bool = False

    @property
    def status(self) -> Any:
        """As the model is told."""
        messages = [output for output in self.outputs if isinstance(output, ToolMessage)]
        return messages[0].status if messages else "success"


@dataclass(frozen=True)
class _Start:
    """What a call is run with."""

    tool: BaseTool
    page: CallJournal | None
    approved: bool


@dataclass(frozen=True, kw_only=True)
class ToolNode:
    """Runs tool calls; whatever happens, the model gets a result to read."""

    tools: Sequence[BaseTool] = ()
    """The tools that may be called."""

    asks: bool = False
    """Whether a person is asked about a call that was under way when a process died; else the model is told
    that its outcome is unknown."""

    def as_node(self) -> Runnable[ToolTask, Any]:
        """This node for ``StateGraph.add_node``, synchronous and asynchronous."""
        return node(self.run, self.arun, name="tools")

    def run(self, task: ToolTask, config: RunnableConfig) -> Any:
        """One call, synchronously; async tools work too."""
        if CallJournal.of(config, task["call"], task["message_id"]) is None:
            return at_once(self._run(task, config, _called_blocking))
        return PRIVATE_LOOP.run(self.arun(task, config))

    async def arun(self, task: ToolTask, config: RunnableConfig) -> Any:
        """One call.

        Raises:
            GraphBubbleUp: The tool interrupted the graph or left it, or a person is to decide about the call.
        """
        return await self._run(task, config, acall)

    async def _run(self, task: ToolTask, config: RunnableConfig, run_tool: _RunTool) -> Any:
        call = task["call"]
        call_id, name = call["id"] or "", call["name"]
        start = await self._prepared(task, config)
        emit({"type": "tool_started", "id": call_id, "name": name, "args": call["args"]})
        started = time.monotonic()
        result = start if isinstance(start, _Result) else await self._execute(start, task, config, run_tool)
        emit(
            {
                "type": "tool_finished",
                "id": call_id,
                "name": name,
                "status": result.status,
                "seconds": 0.0 if result.replayed else round(time.monotonic() - started, 3),
                "replayed": result.replayed,
            }
        )
        return _update(result.outputs)

    @cached_property
    def _by_name(self) -> Mapping[str, BaseTool]:
        return {tool.name: tool for tool in self.tools}

    async def _prepared(self, task: ToolTask, config: RunnableConfig) -> _Start | _Result:
        """What the call came to, if that is known already, or what it is run with."""
        call = task["call"]
        tool = self._by_name.get(call["name"])
        if tool is None:
            return _Result(unknown_tool(call, self._by_name).outputs)
        page = CallJournal.of(config, call, task["message_id"])
        entry = await page.begin() if page else None
        unknown: list[CallJournal] = []
        while page and entry and is_repeated(entry):
            unknown.append(page)
            page = page.next()
            entry = await page.begin()
        if page and entry:
            message = recorded(entry, call)
            if message is not None:
                return _Result((message,), replayed=True)
            if is_paused(entry) or policy_of(tool).idempotent:
                await page.restart()
            else:
                unknown.append(page)
        for each in unknown:
            # What was decided in an earlier run of this task is asked for too: LangGraph gives back its
            # answers in their order, and those to questions of the tool's own come after these.
            result = await self._decided(tool, call, each)
            if result is not None:
                return result
        if page and unknown and page is unknown[-1]:
            page = page.next()
            await page.begin()
        return _Start(tool, page, approved=bool(unknown) or task.get("approved", False))

    async def _decided(self, tool: BaseTool, call: ToolCall, page: CallJournal) -> _Result | None:
        """The result of a call of unknown outcome; ``None`` if it is to run again.

        Raises:
            GraphInterrupt: Nobody has decided yet.
        """
        name = call["name"]
        if not self.asks:
            return _Result((error_result(call["id"], name, prompts.unknown_outcome(name)),))
        decision = ask_about_repeat(call, tool, attempt=page.attempt)
        match decision:
            case Respond(text):
                message = ToolMessage(text, tool_call_id=call["id"] or "", name=name)
                await page.finish(message)
                return _Result((message,))
            case Reject(reason):
                return _Result((error_result(call["id"], name, prompts.given_up_call(name, reason)),))
        await page.repeat()
        return None

    async def _execute(
        self, start: _Start, task: ToolTask, config: RunnableConfig, run_tool: _RunTool
    ) -> _Result:
        page = start.page
        try:
            outcome = await run_tool(
                start.tool, task["call"], config=config, approved=start.approved, propagate=(GraphBubbleUp,)
            )
        except GraphBubbleUp:
            if page:
                await page.pause()
            raise
        # Commands cannot be journalled; such a call stays «started», which is honest after a crash.
        if page and outcome.message and len(outcome.outputs) == 1:
            await page.finish(outcome.message)
        return _Result(outcome.outputs)


async def _called_blocking(*args: Any, **options: Any) -> ToolOutcome:
    return call(*args, **options)


def _update(outputs: Sequence[Any]) -> Any:
    """What the node writes: messages as one update, each command as itself."""
    messages = [output for output in outputs if isinstance(output, ToolMessage)]
    commands = [output for output in outputs if not isinstance(output, ToolMessage)]
    update = {"messages": messages}
    if not commands:
        return update
    return [*commands, update] if messages else commands
