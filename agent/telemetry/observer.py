"""The observer: LangChain's callbacks, as activities.

LangChain calls a handler for every runnable. Those that LangGraph marks as a step of a graph are steps; a
runnable without a parent is a run; the rest is machinery inside a step, and counts as that step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from agent.telemetry.activities import Activity, Kind, Sink

_STEP_TAG = "graph:step:"
"""What LangGraph tags the run of a node with; a contract test holds it to that."""


class RunObserver(BaseCallbackHandler):
    """Give it as a callback; tells its sinks of runs, steps, model calls and tool calls.

    One observer serves any number of runs, threads and event loops at once.

    Args:
        sinks: Who is told.
    """

    run_inline = True  # in the order of what happens, in the place of a pool of threads

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._current: dict[UUID, Activity] = {}
        self._owners: dict[UUID, Activity] = {}
        self._runs: dict[str, Activity] = {}

    # Runs and steps

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """A runnable begins: a run, a step, or a part of one."""
        name = given.get("name") or "graph"
        if parent_run_id is None or parent_run_id not in self._current:
            self._begin("run", name, run_id, parent_run_id, given)
        elif any(tag.startswith(_STEP_TAG) for tag in given.get("tags") or ()):
            self._begin("step", name, run_id, parent_run_id, given)
        else:
            self._current[run_id] = self._current[parent_run_id]

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **given: Any) -> None:
        """It has ended well."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It has raised; or a person is asked."""
        self._end(run_id, error)

    # Calls

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **given: Any,
    ) -> None:
        """A model is asked."""
        self._begin("model", _model_name(given), run_id, parent_run_id, given)

    def on_llm_start(
        self,
        serialized: Any,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **given: Any,
    ) -> None:
        """A model is asked to continue a text."""
        self._begin("model", _model_name(given), run_id, parent_run_id, given)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **given: Any) -> None:
        """A piece of its answer has come."""
        activity = self._owners.get(run_id)
        if activity is not None and activity.first_token is None:
            activity.first_token = time.time_ns()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """Its answer is complete."""
        if activity := self._owners.get(run_id):
            for message in _messages(response):
                _count(message, activity)
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It gave none."""
        self._end(run_id, error)

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tool_call_id: str | None = None,
        **given: Any,
    ) -> None:
        """A tool is run: once per attempt, if its policy retries."""
        name = given.get("name") or (serialized or {}).get("name") or "tool"
        self._begin("tool", name, run_id, parent_run_id, given, call_id=tool_call_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **given: Any) -> None:
        """It has ended well."""
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It has raised."""
        self._end(run_id, error)

    # The saver

    @contextmanager
    def checkpoint_write(self, method: str, config: RunnableConfig) -> Iterator[None]:
        """Around a write of the saver; see ``SQLSaver.observer``.

        Args:
            method: ``put`` or ``put_writes``.
            config: What the saver was called with.
        """
        thread_id = str(config.get("configurable", {}).get("thread_id", ""))
        activity = Activity(
            kind="checkpoint", name=method, thread_id=thread_id, parent=self._runs.get(thread_id)
        )
        self._tell_begin(activity)
        try:
            yield
        except BaseException as error:
            _fail(activity, error)
            raise
        finally:
            self._tell_end(activity)

    # Bookkeeping

    def _begin(
        self,
        kind: Kind,
        name: str,
        run_id: UUID,
        parent_run_id: UUID | None,
        given: Mapping[str, Any],
        *,
        call_id: str | None = None,
    ) -> None:
        parent = self._current.get(parent_run_id) if parent_run_id is not None else None
        thread_id = (given.get("metadata") or {}).get("thread_id")
        activity = Activity(
            kind=kind,
            name=name,
            parent=parent,
            thread_id=None if thread_id is None else str(thread_id),
            call_id=call_id,
        )
        self._current[run_id] = self._owners[run_id] = activity
        if parent is None and activity.thread_id is not None:
            self._runs[activity.thread_id] = activity
        self._tell_begin(activity)

    def _end(self, run_id: UUID, error: BaseException | None = None) -> None:
        self._current.pop(run_id, None)
        activity = self._owners.pop(run_id, None)
        if activity is None:
            return
        if isinstance(error, asyncio.CancelledError):
            # LangChain tells of no end of a model call that is cancelled, only of what is around it.
            for within in [each for each, other in list(self._owners.items()) if other.parent is activity]:
                self._end(within, error)
        if error is not None:
            _fail(activity, error)
        if self._runs.get(activity.thread_id or "") is activity:
            del self._runs[activity.thread_id or ""]
        self._tell_end(activity)

    def _tell_begin(self, activity: Activity) -> None:
        for sink in self._sinks:
            sink.begin(activity)

    def _tell_end(self, activity: Activity) -> None:
        activity.ended = time.time_ns()
        for sink in self._sinks:
            sink.end(activity)


def _fail(activity: Activity, error: BaseException) -> None:
    if not isinstance(error, GraphBubbleUp):
        activity.outcome, activity.error = "error", type(error).__name__
        return
    # LangGraph ends the run around an interrupt without an error, though it is not at its end.
    around: Activity | None = activity
    while around is not None:
        around.outcome = "interrupted"
        around = around.parent


def _model_name(given: Mapping[str, Any]) -> str:
    return str((given.get("metadata") or {}).get("ls_model_name") or given.get("name") or "model")


def _messages(response: LLMResult) -> Iterator[AIMessage]:
    for generations in response.generations:
        for generation in generations[:1]:  # several answers of one call share its token counts
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                yield generation.message


def _count(message: AIMessage, activity: Activity) -> None:
    usage = message.usage_metadata
    if usage is not None:
        activity.input_tokens += usage["input_tokens"]
        activity.output_tokens += usage["output_tokens"]
        activity.cached_tokens += usage.get("input_token_details", {}).get("cache_read", 0)
    activity.finish_reason = message.response_metadata.get("finish_reason") or activity.finish_reason
