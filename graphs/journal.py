"""What a graph asks of a saver so that a finished tool call is never run twice.

LangGraph stores a task's result only when the task has ended and its write has reached the saver; a process
that dies in between would run the tool again. A saver that carries a ``journal`` closes the gap: the call is
written down before it starts and its result before the graph goes on. Any object of this shape will do;
savers without one work too and keep LangGraph's own guarantee.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig

from graphs import prompts
from graphs.repair import error_result
from graphs.turn import Gaps, canonical_args, digest_of

_SAVER_KEY = "__pregel_checkpointer"
"""Where LangGraph puts the saver of a run into a task's config. A node cannot ask for it in another way, and
the saver given at build time is not enough: LangGraph's server replaces it, and subgraphs inherit it."""

_AGAIN = "\nagain"
"""Ends the keys of later pages; no tool-call id or digest has it in it."""

_PAUSED: Mapping[str, Any] = {"paused": True}
"""The result under which a call is journalled that did not run to its end and may run again."""

_REPEATED: Mapping[str, Any] = {"repeated": True}
"""The result under which a call of unknown outcome is journalled that a person lets run again: what became
of that stands on the next page."""


class JournalEntry(Protocol):
    """One call as the journal knows it."""

    @property
    def status(self) -> Literal["started", "finished"]:
        """``started`` without ``finished`` means that the outcome is unknown."""

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What :meth:`Journal.afinish` was given."""

    @property
    def attempts(self) -> int:
        """How often the call was started."""


class Journal(Protocol):
    """Started and finished tool calls of every thread. All methods are durable when they return."""

    async def abegin(self, *, thread_id: str, call_id: str, tool: str) -> JournalEntry | None:
        """Note that a call starts.

        Returns:
            ``None`` if it was not known, so that it may run now; else the entry, unchanged.
        """

    async def afinish(self, *, thread_id: str, call_id: str, result: Mapping[str, Any]) -> None:
        """Note the result of a call; ``result`` can be written as JSON."""

    async def arestart(self, *, thread_id: str, call_id: str) -> None:
        """Note that a known call starts once more: its status is ``started`` again."""


@dataclass(frozen=True)
class CallJournal:
    """The journal's page for one tool call."""

    journal: Journal
    thread_id: str
    key: str
    tool: str

    @classmethod
    def of(cls, config: RunnableConfig, call: ToolCall, message_id: str) -> CallJournal | None:
        """The page for ``call``, or ``None`` if the run has no journal or no thread.

        The key is the call's own id with a digest of the message that made the call, the tool and the
        arguments. A model may use an id again in another branch of the thread, and people edit arguments
        before they approve a call; neither may get the result of a different call.
        """
        configurable = config.get("configurable", {})
        journal = getattr(configurable.get(_SAVER_KEY), "journal", None)
        thread_id = configurable.get("thread_id")
        if journal is None or thread_id is None:
            return None
        digest = digest_of(message_id, call["name"], canonical_args(call["args"]))
        return cls(journal, str(thread_id), f"{call['id']}:{digest}", call["name"])

    async def begin(self) -> JournalEntry | None:
        """Note that the call starts, unless it is known; then its entry comes back."""
        return await self.journal.abegin(thread_id=self.thread_id, call_id=self.key, tool=self.tool)

    def next(self) -> CallJournal:
        """The page on which the call stands when a person lets it run again.

        A page of its own, so that a decision is for one attempt: each that ended in the unknown needs one.
        """
        return replace(self, key=f"{self.key}{_AGAIN}")

    @property
    def attempt(self) -> int:
        """1 for the first page, and one more for each that a person has added."""
        return self.key.count(_AGAIN) + 1

    async def repeat(self) -> None:
        """Note that the call is to run again, on the next page."""
        await self.journal.afinish(thread_id=self.thread_id, call_id=self.key, result=_REPEATED)

    async def restart(self) -> None:
        """Note that the call starts once more."""
        await self.journal.arestart(thread_id=self.thread_id, call_id=self.key)

    async def finish(self, message: ToolMessage) -> None:
        """Note the result; an artifact that is no JSON is left out, as the model never sees it."""
        result = {"content": message.content, "status": message.status}
        if message.artifact is not None and _is_json(message.artifact):
            result["artifact"] = message.artifact
        await self.journal.afinish(thread_id=self.thread_id, call_id=self.key, result=result)

    async def pause(self) -> None:
        """Note that the call did not run to its end and may be started again without harm."""
        await self.journal.afinish(thread_id=self.thread_id, call_id=self.key, result=_PAUSED)


def recorded(entry: JournalEntry, call: ToolCall) -> ToolMessage | None:
    """The result that the journal holds for a call; ``None`` if it did not finish."""
    if entry.status != "finished" or entry.result is None or entry.result in (_PAUSED, _REPEATED):
        return None
    return ToolMessage(
        content=entry.result["content"],
        status=entry.result["status"],
        artifact=entry.result.get("artifact"),
        name=call["name"],
        tool_call_id=call["id"] or "",
    )


def is_paused(entry: JournalEntry) -> bool:
    """Whether the call stopped half-way on purpose, for example to ask a person."""
    return entry.status == "finished" and entry.result == _PAUSED


def is_repeated(entry: JournalEntry) -> bool:
    """Whether a person let the call run again: its result stands on the next page."""
    return entry.status == "finished" and entry.result == _REPEATED


async def recall(gaps: Gaps, config: RunnableConfig) -> dict[str, ToolMessage]:
    """What the journal knows of calls that the conversation has no result of, as results by call id.

    There are some where a run was stopped and the thread goes on with a new message: LangGraph then drops
    the unfinished step, and with it what its finished calls had returned.
    """
    known: dict[str, ToolMessage] = {}
    for answer, _ in gaps:
        for call in answer.tool_calls:
            page = CallJournal.of(config, call, answer.id or "")
            if page is None:
                return known
            entry = await page.begin()
            while entry is not None and is_repeated(entry):
                page = page.next()
                entry = await page.begin()
            if entry is None and page.attempt > 1:
                await page.pause()  # only its first attempt is of unknown outcome, which is the default
            elif entry is None:
                await page.pause()  # it never started, and asking must not make it look as if it had
                text = prompts.call_not_run(call["name"])
                known[call["id"] or ""] = error_result(call["id"], call["name"], text)
            elif (result := recorded(entry, call)) is not None:
                known[result.tool_call_id] = result
    return known


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
