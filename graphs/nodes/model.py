"""The node that asks the model, whatever the graph around it.

Before the call it mends what an earlier run left open, decides whether the turn has met a limit, and cuts
the conversation to the model's context. After the call it makes the answer safe to act on: unique call ids,
malformed calls answered with errors, no calls at all in a last answer.

The synchronous path calls the model's synchronous method and does not share the tools' loop: third-party
models keep separate clients for the two, bound to the loop that first used them.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.constants import TAG_NOSTREAM

from graphs import prompts
from graphs.context import fit_context, token_budget, well_formed, with_system_prompt
from graphs.events import StopReason, emit
from graphs.journal import recall
from graphs.limits import TurnLimits
from graphs.nodes.callable import node
from graphs.repair import answer_malformed_calls, answer_open_calls, with_unique_call_ids, without_calls
from graphs.state import ConversationState
from graphs.summary import Summary, SummaryRequest, summary_request, with_summary
from graphs.turn import Gaps, current_turn, model_calls, unanswered
from tools.private_loop import PRIVATE_LOOP


@dataclass(frozen=True)
class _Mended:
    """A conversation in which every call has a result, and whether its turn must end."""

    conversation: list[BaseMessage]
    repairs: list[BaseMessage]
    closing: StopReason | None


@dataclass(frozen=True)
class _Request:
    """One call of the model, ready to be made, and what is needed to judge its answer."""

    runnable: Runnable[LanguageModelInput, AIMessage]
    messages: list[BaseMessage]
    mended: _Mended
    summary: Summary | None
    """A new one, to be stored."""


@dataclass(frozen=True, kw_only=True)
class ModelNode:
    """Asks a chat model for the next message of a conversation.

    Raises:
        ValueError: A limit is out of range.
    """

    model: BaseChatModel
    """Any LangChain chat model; it needs ``bind_tools`` only where there are tools."""

    tools: Sequence[BaseTool] = ()
    """The tools offered, in the order in which they are offered."""

    system_prompt: str | None = None
    """Stands first in every request; never stored in the thread."""

    limits: TurnLimits = field(default_factory=TurnLimits)
    """When the model is asked for its last answer in a turn."""

    max_context_tokens: int | None = None
    """Tokens a request may take; by default what the model's profile says."""

    summarise: bool = False
    """Whether turns that no longer fit are summarised, in the place of being left out."""

    first_choice: str | None = None
    """The ``tool_choice`` of the first call in a turn, such as ``"any"``; ``None`` leaves it to the model."""

    briefing: Callable[[Mapping[str, Any]], str] | None = None
    """What the model is told beside the conversation, from the graph's state. It stands at the end of the
    request, where it costs nothing of the prefix cache, and is not stored."""

    def __post_init__(self) -> None:
        if self.max_context_tokens is not None and not self.max_context_tokens >= 1:
            raise ValueError(f"max_context_tokens={self.max_context_tokens!r}: must be 1 or more")

    def as_node(self) -> Runnable[ConversationState, dict[str, Any]]:
        """This node for ``StateGraph.add_node``, synchronous and asynchronous."""
        return node(self.run, self.arun, name="model")

    def run(self, state: ConversationState, config: RunnableConfig) -> dict[str, Any]:
        """One step, synchronously."""
        gaps = unanswered(state["messages"])
        known = PRIVATE_LOOP.run(recall(gaps, config)) if gaps else {}
        mended = self._mend(state, known, gaps)
        wanted = self._wanted_summary(mended, state)
        written = self._quiet.invoke(wanted.messages, config).text if wanted else ""
        request = self._prepare(state, mended, self._summary(state, wanted, written))
        return self._conclude(request, request.runnable.invoke(request.messages, config))

    async def arun(self, state: ConversationState, config: RunnableConfig) -> dict[str, Any]:
        """One step, asynchronously."""
        gaps = unanswered(state["messages"])
        known = await recall(gaps, config) if gaps else {}
        mended = self._mend(state, known, gaps)
        # In threads: the model may read its tokenizer or template from disk to bind tools or count tokens.
        wanted = await asyncio.to_thread(self._wanted_summary, mended, state)
        written = (await self._quiet.ainvoke(wanted.messages, config)).text if wanted else ""
        summary = self._summary(state, wanted, written)
        request = await asyncio.to_thread(self._prepare, state, mended, summary)
        return self._conclude(request, await request.runnable.ainvoke(request.messages, config))

    @cached_property
    def _first(self) -> Runnable[LanguageModelInput, AIMessage]:
        if not self.tools or self.first_choice is None:
            return self._with_tools
        return self.model.bind_tools(list(self.tools), tool_choice=self.first_choice)

    @cached_property
    def _with_tools(self) -> Runnable[LanguageModelInput, AIMessage]:
        # Bound at the first call and not before: binding may need the model's template, and building a graph
        # must load nothing.
        return self.model.bind_tools(list(self.tools)) if self.tools else self.model

    @cached_property
    def _quiet(self) -> Runnable[LanguageModelInput, AIMessage]:
        return self.model.with_config(tags=[TAG_NOSTREAM])

    def _mend(self, state: ConversationState, known: Mapping[str, ToolMessage], gaps: Gaps) -> _Mended:
        conversation, repairs = answer_open_calls(state["messages"], gaps, known)
        if gaps:
            ids = [call["id"] or "" for _, calls in gaps for call in calls]
            emit({"type": "calls_repaired", "ids": ids})
        closing = self.limits.reached(conversation, remaining_steps=state.get("remaining_steps"))
        if closing:
            emit({"type": "turn_closing", "reason": closing})
        return _Mended(conversation, repairs, closing)

    def _wanted_summary(self, mended: _Mended, state: ConversationState) -> SummaryRequest | None:
        if not self.summarise:
            return None
        return summary_request(
            self._whole(mended, state),
            state.get("summary"),
            model=self.model,
            budget=token_budget(self.model, self.max_context_tokens),
            tools=() if mended.closing else self.tools,
        )

    def _summary(
        self, state: ConversationState, wanted: SummaryRequest | None, written: str
    ) -> Summary | None:
        if wanted is None or not written.strip():
            return state.get("summary") if self.summarise else None
        emit({"type": "context_summarised", "covered": wanted.covered})
        return Summary(text=written.strip(), through=wanted.through)

    def _whole(self, mended: _Mended, state: ConversationState) -> list[BaseMessage]:
        """The conversation with what stands before and behind it in a request."""
        asked = with_system_prompt(well_formed(mended.conversation), self.system_prompt)
        return appended(asked, self._appendix(state, mended.closing))

    def _prepare(self, state: ConversationState, mended: _Mended, summary: Summary | None) -> _Request:
        offered = () if mended.closing else self.tools
        # Cut with what will be appended already in place, so that the whole request fits.
        fitted = fit_context(
            with_summary(self._whole(mended, state), summary),
            model=self.model,
            budget=token_budget(self.model, self.max_context_tokens),
            tools=offered,
        )
        if fitted.dropped or fitted.shortened:
            emit({"type": "context_trimmed", "dropped": fitted.dropped, "shortened": fitted.shortened})
        first = model_calls(current_turn(mended.conversation)) == 0
        runnable = self.model if mended.closing else self._first if first else self._with_tools
        changed = summary if summary != state.get("summary") else None
        return _Request(runnable, fitted.messages, mended, changed)

    def _appendix(self, state: ConversationState, closing: StopReason | None) -> str:
        texts = [self.briefing(state)] if self.briefing is not None else []
        if closing:
            texts.append(prompts.last_answer_instruction(closing))
        return "\n\n".join(text for text in texts if text)

    def _conclude(self, request: _Request, answer: AIMessage) -> dict[str, Any]:
        mended = request.mended
        # Some servers draw their ids from a thousand, and the state would replace the older message.
        if not answer.id or answer.id in [message.id for message in mended.conversation]:
            answer = answer.model_copy(update={"id": f"run-{uuid.uuid4()}"})
        if mended.closing:
            metadata = {**answer.response_metadata, "stopped_by": mended.closing}
            answer = without_calls(answer, prompts.gave_up(mended.closing))
            answer = answer.model_copy(update={"response_metadata": metadata})
        else:
            answer = with_unique_call_ids(answer, mended.conversation)
        update: dict[str, Any] = {"messages": [*mended.repairs, answer, *answer_malformed_calls(answer)]}
        return update if request.summary is None else {**update, "summary": request.summary}


def appended(messages: Sequence[BaseMessage], text: str) -> list[BaseMessage]:
    """A request with ``text`` at the end of its last message.

    Not as a message of its own: after a tool's result many templates accept neither a system message nor one
    of the user's.
    """
    if not text:
        return list(messages)
    if not messages or isinstance(messages[-1], AIMessage):
        return [*messages, HumanMessage(content=text)]
    *before, last = messages
    content: Any = last.content
    if isinstance(content, str):
        content = f"{content}\n\n{text}"
    else:
        content = [*content, {"type": "text", "text": text}]
    return [*before, last.model_copy(update={"content": content})]
