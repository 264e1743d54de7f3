"""Doubles for the tests of graphs: a chat model that follows a script, and a journal that can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import PrivateAttr

Reply = str | AIMessage | Callable[[list[BaseMessage]], AIMessage | str]


def calls(*wanted: tuple[str, dict[str, Any]], text: str = "", ids: Sequence[str] = ()) -> AIMessage:
    """An answer with tool calls; ids are c0, c1, … unless given."""
    return AIMessage(
        content=text,
        tool_calls=[
            {"name": name, "args": args, "id": ids[i] if ids else f"c{i}", "type": "tool_call"}
            for i, (name, args) in enumerate(wanted)
        ],
    )


def malformed(name: str = "add", text: str = '{"a": 1]', call_id: str | None = "bad") -> AIMessage:
    """An answer whose only call could not be read."""
    return AIMessage(
        content="",
        invalid_tool_calls=[
            {
                "name": name,
                "args": text,
                "id": call_id,
                "error": "mismatched bracket",
                "type": "invalid_tool_call",
            }
        ],
    )


class ScriptedModel(BaseChatModel):
    """Answers with its script, one reply per call; the last one is repeated when it has run out."""

    script: list[Any]
    limit: int | None = None
    _requests: list[tuple[list[BaseMessage], list[str] | None]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def requests(self) -> list[list[BaseMessage]]:
        """What was sent, call by call."""
        return [messages for messages, _ in self._requests]

    @property
    def offered(self) -> list[list[str] | None]:
        """The tools offered, call by call; None where none were bound."""
        return [tools for _, tools in self._requests]

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[tool.name for tool in tools], **kwargs)

    def _next(self, messages: list[BaseMessage], tools: list[str] | None) -> AIMessage:
        turn = len(self._requests)
        self._requests.append((list(messages), tools))
        reply = self.script[min(turn, len(self.script) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        if callable(reply):
            reply = reply(messages)
        return AIMessage(reply) if isinstance(reply, str) else reply.model_copy(deep=True)

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        answer = self._next(messages, kwargs.get("tools"))
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._next(messages, kwargs.get("tools"))
        words = str(answer.content).split(" ") if answer.content else []
        for i, word in enumerate(words):
            text = word if i == 0 else f" {word}"
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
            if run_manager:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk
        raw = [(c["name"], json.dumps(c["args"]), c["id"]) for c in answer.tool_calls]
        raw += [(c["name"], c["args"], c["id"]) for c in answer.invalid_tool_calls]
        for index, (name, args, call_id) in enumerate(raw):
            chunk = ChatGenerationChunk(
                message=AIMessageChunk(
                    content="",
                    tool_call_chunks=[{"name": name, "args": args, "id": call_id, "index": index}],
                )
            )
            if run_manager:
                run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk


class CountingModel(ScriptedModel):
    """A scripted model with a tokenizer: every word is a token, every message costs two more."""

    def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
        return sum(2 + len(message.text.split()) for message in messages) + 5 * len(tools or ())


@dataclass
class Entry:
    tool: str
    status: str = "started"
    result: Any = None
    attempts: int = 1


@dataclass
class FakeJournal:
    """Keeps entries as JSON would, so that a result which is no JSON fails here and not on disk."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)

    async def abegin(self, *, thread_id: str, call_id: str, tool: str) -> Entry | None:
        known = self.entries.get((thread_id, call_id))
        if known is None:
            self.entries[thread_id, call_id] = Entry(tool)
        return known

    async def afinish(self, *, thread_id: str, call_id: str, result: Any) -> None:
        entry = self.entries[thread_id, call_id]
        entry.status, entry.result = "finished", json.loads(json.dumps(result))

    async def arestart(self, *, thread_id: str, call_id: str) -> None:
        entry = self.entries[thread_id, call_id]
        entry.status, entry.result, entry.attempts = "started", None, entry.attempts + 1


class JournalSaver(InMemorySaver):
    """LangGraph's saver in memory, with a journal."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = FakeJournal()
