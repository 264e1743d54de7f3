"""One turn of a conversation: from a question to its answer, told to a view while it happens.

Runs on asyncio, because only there can an answer be cancelled half-way: Ctrl-C cancels the task, which frees
the engine's slot at once. A thread that waits for the engine would wait for the whole answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage

from agent.errors import ConfigurationError
from graphs.decisions import Decision, DecisionError, WaitingCall, decide, waiting_calls, waiting_problems
from graphs.prompts import call_not_run, unanswered_call
from graphs.repair import error_result
from graphs.turn import is_unfinished, last_answer, open_calls

if TYPE_CHECKING:
    from agent.app import App, Resume, Snapshot

_MODEL_NODE = "model"


class View(Protocol):
    """Is told what happens in a turn, in the order in which it happens."""

    def token(self, text: str) -> None:
        """A piece of the model's answer."""

    def writing(self, name: str) -> None:
        """The model begins to write a call of a tool."""

    def called(self, name: str, arguments: Mapping[str, Any], *, call_id: str) -> None:
        """A tool begins to run."""

    def returned(self, result: ToolMessage, *, seconds: float | None, replayed: bool) -> None:
        """A tool has a result; ``seconds`` is None where it did not run."""

    def happened(self, event: Mapping[str, Any]) -> None:
        """Another event of :mod:`graphs.events`."""


class Steps(Protocol):
    """Is told which nodes of the graph run; a node that runs several times at once is told of as often."""

    def entered(self, node: str) -> None:
        """A node begins."""

    def left(self, node: str) -> None:
        """It has ended, or waits for a person."""


class Turn:
    """Runs one turn and remembers how far it came.

    Args:
        app: The agent.
        thread_id: The conversation.
        view: Told what happens.
        steps: Told which nodes run; they are asked for only then.
    """

    def __init__(self, app: App, thread_id: str, view: View, *, steps: Steps | None = None) -> None:
        self._app = app
        self._steps = steps
        self._config = app.thread(thread_id)
        self._view = view
        self._known: set[str | None] = set()
        self._events: dict[str, Mapping[str, Any]] = {}
        self._streamed = ""
        self._begun = False
        self.waiting: list[WaitingCall] = []
        """Tool calls that wait for a decision, since the turn was run or :meth:`finish` was asked for."""
        self.problems: list[str] = []
        """What was wrong with the decisions given so far."""

    async def ask(self, question: str) -> AIMessage | None:
        """Answer ``question``, after whatever an earlier process left unfinished.

        Returns:
            The model's last message in this turn.

        Raises:
            ConfigurationError: The conversation waits for a decision that a question does not answer.
        """
        await self.finish()
        if self.waiting:
            ids = ", ".join(call["id"] for call in self.waiting)
            self._begun = False  # they wait for whoever decides, and outlive this question
            raise ConfigurationError(f"this conversation waits for decisions about {ids}; give them first")
        return await self._run({"messages": [HumanMessage(question)]})

    async def finish(self) -> AIMessage | None:
        """Run what an earlier process left unfinished to its end.

        Returns:
            The model's last message; ``None`` if nothing was unfinished, or if it waits for decisions.

        Raises:
            ConfigurationError: It waits for something else than decisions about tool calls.
        """
        state = await self._state()
        return await self._run(None) if is_unfinished(state) and not self.waiting else None

    async def decide(self, decisions: Mapping[str, Decision]) -> AIMessage | None:
        """Go on with a turn that waits.

        Args:
            decisions: By tool-call id.

        Raises:
            ConfigurationError: One of these calls does not wait.
        """
        state = await self._state()
        try:
            return await self._run(decide(decisions, to=state))
        except DecisionError as error:
            raise ConfigurationError(str(error)) from error

    async def abandon(self, reason: str) -> None:
        """End a turn that was cancelled: keep what was said, and leave no call without a result.

        What an earlier turn left stays as it is where this one never came to run: calls that wait for a
        decision, or an answer that can be gone on with.

        Args:
            reason: Stands in the place of an answer that had not begun.
        """
        if not self._begun:
            return
        state = await self._app.graph.aget_state(self._config)
        if not is_unfinished(state) or _MODEL_NODE not in self._app.graph.nodes:
            return
        messages = state.values.get("messages", [])
        undecided = {call["id"] for call in waiting_calls(state) if "warning" not in call}
        ending: list[BaseMessage] = [
            error_result(
                call["id"],
                call["name"],
                (call_not_run if call["id"] in undecided else unanswered_call)(call["name"]),
            )
            for call in open_calls(messages)
        ]
        said = self._streamed.strip()
        ending.append(AIMessage(said or f"({reason})", response_metadata={"stopped_by": "user"}))
        await self._app.graph.aupdate_state(self._config, {"messages": ending}, as_node=_MODEL_NODE)

    async def _state(self) -> Snapshot:
        self._begun = True
        state = await self._app.graph.aget_state(self._config)
        self.waiting, self.problems = waiting_calls(state), waiting_problems(state)
        if state.interrupts and not self.waiting:
            raise ConfigurationError(
                f"this conversation waits for an answer to {state.interrupts[0].value!r}. "
                "This command cannot give one; resume the graph with Command(resume=…) in Python"
            )
        self._known = {message.id for message in state.values.get("messages", [])}
        return state

    async def _run(self, given: Mapping[str, Any] | Resume | None) -> AIMessage | None:
        self._streamed = ""
        # "sync": the model's calls are on the disk before a tool starts, so that a process killed in a tool
        # resumes with these very calls, and the journal knows them again.
        stream = self._app.graph.astream(
            given,
            self._config,
            stream_mode=["messages", "custom", "updates", *(("tasks",) if self._steps else ())],
            durability="sync",
            subgraphs=True,
        )
        async for namespace, mode, payload in stream:
            self._read(mode, payload, within=bool(namespace))
        state = await self._state()
        return None if self.waiting else last_answer(state.values.get("messages", []))

    def _read(self, mode: str, payload: Any, *, within: bool) -> None:
        """Tell the view; of graphs within the graph their tools, and not their words: no answer as yet."""
        if mode == "tasks":
            if self._steps and not within:
                # What begins has its triggers, what ends its result.
                told = self._steps.entered if "triggers" in payload else self._steps.left
                told(payload["name"])
        elif mode == "messages":
            message = payload[0]
            if isinstance(message, AIMessageChunk) and not within:
                self._read_chunk(message)
        elif mode == "custom":
            self._read_event(payload)
        else:
            for update in payload.values():
                if isinstance(update, Mapping):
                    for message in update.get("messages") or ():
                        if isinstance(message, ToolMessage) or not within:
                            self._read_message(message)

    def _read_chunk(self, chunk: AIMessageChunk) -> None:
        if chunk.text:
            self._streamed += chunk.text
            self._view.token(chunk.text)
        for call in chunk.tool_call_chunks:
            if call["name"]:
                self._view.writing(call["name"])

    def _read_event(self, event: Any) -> None:
        if not isinstance(event, Mapping):
            return
        kind = event.get("type")
        if kind == "tool_started":
            self._view.called(event["name"], event["args"], call_id=event["id"])
        elif kind == "tool_finished":
            self._events[event["id"]] = event
        else:
            self._view.happened(event)

    def _read_message(self, message: BaseMessage) -> None:
        if message.id in self._known:
            return
        self._known.add(message.id)
        if isinstance(message, ToolMessage):
            event = self._events.get(message.tool_call_id, {})
            seconds = event.get("seconds") if not event.get("replayed") else None
            self._view.returned(message, seconds=seconds, replayed=bool(event.get("replayed")))
        elif isinstance(message, AIMessage):
            # Words that were put in the model's place were not streamed.
            if message.text.strip() != self._streamed.strip():
                self._view.token(message.text)
            self._streamed = ""
