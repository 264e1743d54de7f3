"""A deterministic engine without a model, for tests of graphs and tools.

It is shipped to users because their graphs need tests too: an agent's logic can be tested in milliseconds
against answers that are written down. It passes the same contract suite as the real engines.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agent.engines.base import EngineInfo, PoolingRoute, Request, Response
from agent.engines.loop import EngineLoop
from agent.engines.wordwise import answer
from agent.errors import ConfigurationError, EngineClosedError, RequestError


@dataclass(frozen=True)
class Reply:
    """One scripted answer."""

    content: str = ""
    """The answer's text."""

    tool_calls: Sequence[Mapping[str, Any]] = ()
    """Calls as ``{"name": …, "arguments": {…}}``; arguments given as a string are sent as they are, so that
    broken JSON can be scripted; ``"id"`` is optional."""

    reasoning: str = ""
    """Reasoning text that precedes the answer."""

    finish_reason: str | None = None
    """``"stop"``, ``"length"`` or ``"tool_calls"``; by default what fits the answer."""

    delay: float = 0.0
    """Seconds to wait before the first token."""


Script: TypeAlias = "str | Reply | Exception | Callable[[Request], str | Reply | Exception]"
"""What answers one call: a text, a :class:`Reply`, an error to raise, or a function of the request."""


@dataclass
class ScriptedEngine:
    """Answers each call with the next item of a script.

    Args:
        script: The answers, in order; the requests that were made are kept in :attr:`requests`.
        repeat: Start again from the beginning when the script is over, in the place of an error.
        pooled: Answers requests to a pooling model; by default texts are compared by their words.
    """

    script: Sequence[Script]
    repeat: bool = False
    pooled: Callable[[PoolingRoute, Request], Response] | None = None
    requests: list[Request] = field(default_factory=list, init=False)
    loop: EngineLoop = field(default_factory=lambda: EngineLoop("scripted-engine"), init=False, repr=False)
    _closed: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.script, str):
            msg = f"script must be a list of answers, got the text {self.script!r}"
            raise ConfigurationError(msg)
        self._items = itertools.cycle(self.script) if self.repeat else iter(self.script)
        # Unique beyond this process: a conversation may be resumed with a script of its own.
        self._prefix = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    async def start(self) -> EngineInfo:
        """Return at once: there is nothing to start."""
        if self._closed:
            raise EngineClosedError("this scripted engine was closed")
        # Like a model whose own template takes tools: calls come back as calls, not as text.
        return EngineInfo(kind="scripted", model="scripted", tool_parser="scripted", version="scripted")

    async def chat(self, request: Request) -> Response:
        """Answer with the next item of the script."""
        await self.start()
        replies = [await self._next(request)]
        replies += [await self._take(request) for _ in range((request.get("n") or 1) - 1)]
        number = f"{self._prefix}-{next(self._numbers)}"
        return {
            "id": f"chatcmpl-scripted-{number}",
            "object": "chat.completion",
            "model": request.get("model") or "scripted",
            "choices": [self._choice(request, reply, index, number) for index, reply in enumerate(replies)],
            "usage": _usage(request, *replies),
        }

    def _choice(self, request: Request, reply: Reply, index: int, number: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.content}
        if reply.reasoning:
            message["reasoning"] = reply.reasoning
        if calls := self._calls(reply, f"{number}-{index}" if index else number):
            message["tool_calls"] = calls
        choice = {"index": index, "message": message, "finish_reason": _finish_reason(reply)}
        if request.get("logprobs"):
            choice["logprobs"] = _certain_tokens(_words(reply.content))
        return choice

    async def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer with the next item of the script, word by word."""
        await self.start()
        reply = await self._next(request)
        number = f"{self._prefix}-{next(self._numbers)}"
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning": word} for word in _words(reply.reasoning)]
        deltas += [{"content": word} for word in _words(reply.content)]
        for index, call in enumerate(self._calls(reply, number)):
            arguments = call["function"]["arguments"]
            head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
            deltas.append({"tool_calls": [head]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": part}}]}
                for part in _words(arguments)
            ]
        common = {
            "id": f"chatcmpl-scripted-{number}",
            "object": "chat.completion.chunk",
            "model": request.get("model") or "scripted",
        }
        for delta in deltas:
            await asyncio.sleep(0)
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
            if request.get("logprobs") and delta.get("content"):
                choice["logprobs"] = _certain_tokens([delta["content"]])
            yield {**common, "choices": [choice]}
        yield {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish_reason(reply)}]}
        yield {**common, "choices": [], "usage": _usage(request, reply)}

    async def complete(self, request: Request) -> Response:
        """Continue a text with the next item of the script, or the next ``n``; a word is a certain token."""
        await self.start()
        self.requests.append(request)
        replies = [await self._take(request) for _ in range(request.get("n") or 1)]
        choices = [
            {
                "index": index,
                "text": reply.content,
                "finish_reason": _finish_reason(reply),
                **({"logprobs": _certain(reply)} if request.get("logprobs") is not None else {}),
            }
            for index, reply in enumerate(replies)
        ]
        return {
            "id": f"cmpl-scripted-{self._prefix}-{next(self._numbers)}",
            "object": "text_completion",
            "model": "scripted",
            "choices": choices,
            "usage": _usage(request, *replies),
        }

    async def stream_complete(self, request: Request) -> AsyncIterator[Response]:
        """Continue a text with the next item of the script, word by word."""
        whole = await self.complete({**request, "n": 1})
        [choice], usage = whole.pop("choices"), whole.pop("usage")
        for word in _words(choice["text"]):
            await asyncio.sleep(0)
            yield {**whole, "choices": [{"index": 0, "text": word, "finish_reason": None}]}
        yield {**whole, "choices": [{**choice, "text": ""}]}
        yield {**whole, "choices": [], "usage": usage}

    async def render(self, request: Request) -> list[int]:
        """Count words in the place of tokens."""
        return list(range(_count(request)))

    async def pool(self, route: PoolingRoute, request: Request) -> Response:
        """Answer as a pooling model: by the function that was given, or by the words of the texts.

        The vectors of texts that have words in common are near each other. Classes have to be scripted.
        """
        await self.start()
        self.requests.append(request)
        return self.pooled(route, request) if self.pooled is not None else answer(route, request)

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True
        self.loop.stop()

    async def _next(self, request: Request) -> Reply:
        self.requests.append(request)
        return await self._take(request)

    async def _take(self, request: Request) -> Reply:
        try:
            item = next(self._items)
        except StopIteration:
            made = len(self.requests)
            msg = f"the script has {len(self.script)} answers, and this is call {made}; write one more"
            raise RequestError(msg) from None
        answer = item(request) if callable(item) else item
        if isinstance(answer, Exception):
            raise answer
        reply = Reply(answer) if isinstance(answer, str) else answer
        await asyncio.sleep(reply.delay)
        return reply

    def _calls(self, reply: Reply, number: str) -> list[dict[str, Any]]:
        calls = []
        for position, call in enumerate(reply.tool_calls, start=1):
            arguments = call.get("arguments", {})
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            identity = call.get("id", f"call-{number}-{position}")
            function = {"name": call["name"], "arguments": text}
            calls.append({"id": identity, "type": "function", "function": function})
        return calls


def _finish_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _words(text: str) -> list[str]:
    """Split into pieces that join to the same text, a space at the head of each word as tokens have it."""
    pieces = text.split(" ")
    return [piece if i == 0 else f" {piece}" for i, piece in enumerate(pieces)] if text else []


def _certain(reply: Reply) -> dict[str, Any]:
    words = _words(reply.content)
    return {
        "tokens": words,
        "token_logprobs": [0.0] * len(words),
        "top_logprobs": [{word: 0.0} for word in words],
        "text_offset": [0, *itertools.accumulate(map(len, words))][: len(words)],
    }


def _certain_tokens(words: Sequence[str]) -> dict[str, Any]:
    tokens = [{"token": word, "logprob": 0.0, "bytes": list(word.encode())} for word in words]
    return {"content": [{**token, "top_logprobs": [token]} for token in tokens]}


def _count(request: Request) -> int:
    if "prompt" in request:
        return len(str(request["prompt"]).split())
    return sum(len(str(message.get("content") or "").split()) for message in request["messages"])


def _usage(request: Request, *replies: Reply) -> dict[str, int]:
    prompt = _count(request)
    completion = sum(len(reply.content.split()) + len(reply.reasoning.split()) for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
