"""The likeliest of several answers, while they are still being written.

The same call can be decoded under several grammars. Each of them is one request, and the engine works on
all of them at once. What is common to all so far is passed on as it comes: a stream waits only where they
part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from os.path import commonprefix
from typing import Any

from agent.engines.base import Engine, Request, Response
from agent.engines.loop import together

# What makes the engine say how likely its tokens were, before any grammar.
_LIKELIHOOD = {"logprobs": True, "top_logprobs": 0}


def comparable(request: Request) -> bool:
    """Whether one answer is wanted, of which the likelihood is nobody else's business."""
    return int(request.get("n") or 1) == 1 and not request.get("logprobs")


async def likeliest(engine: Engine, requests: Sequence[Request]) -> Response:
    """Return the answer that is likeliest as a whole; the first of equals, and none that was cut off."""
    if len(requests) == 1:
        return await engine.chat(requests[0])
    responses = await together([engine.chat({**request, **_LIKELIHOOD}) for request in requests])
    best = max(responses, key=lambda response: _rank(response["choices"][0]))
    best["choices"][0].pop("logprobs", None)
    return best


async def stream_likeliest(engine: Engine, requests: Sequence[Request]) -> AsyncIterator[Response]:
    """Stream the answer that is likeliest as a whole: the same that :func:`likeliest` returns."""
    if len(requests) == 1:
        async with aclosing(engine.stream_chat(requests[0])) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk
        return
    moved = asyncio.Event()
    writings = [_Writing(moved) for _ in requests]
    tasks = [
        asyncio.create_task(writing.follow(engine, {**request, **_LIKELIHOOD}))
        for writing, request in zip(writings, requests, strict=True)
    ]
    try:
        said = ""
        while not all(writing.over for writing in writings):
            await moved.wait()
            moved.clear()
            for task in tasks:
                if task.done():
                    task.result()  # raises what it failed with, without waiting for the others
            common = commonprefix([writing.text for writing in writings])
            if len(common) > len(said):
                yield writings[0].chunk(common[len(said) :], first=not said)
                said = common
        await asyncio.gather(*tasks)
        best = max(writings, key=lambda writing: (writing.finished, writing.likelihood))
        for chunk in best.rest(len(said), writings[0].identity):
            yield chunk
    finally:
        for task in tasks:
            task.cancel()  # frees the slots now
        await asyncio.gather(*tasks, return_exceptions=True)


class _Writing:
    """One answer that is being written."""

    def __init__(self, moved: asyncio.Event) -> None:
        self._moved = moved
        self._chunks: list[Response] = []
        self.text = ""
        self.likelihood = 0.0  # nats
        self.finished = True  # and not cut off
        self.over = False

    @property
    def identity(self) -> Any:
        """The identity of the answer."""
        return self._chunks[0].get("id")

    async def follow(self, engine: Engine, request: Request) -> None:
        """Read the answer to its end."""
        try:
            async with aclosing(engine.stream_chat(request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    for choice in chunk.get("choices", ()):
                        self.likelihood += _likelihood(choice)
                        self.finished &= choice.get("finish_reason") != "length"
                        self.text += (choice.get("delta") or {}).get("content") or ""
                        choice.pop("logprobs", None)
                    self._chunks.append(chunk)
                    self._moved.set()
        finally:
            self.over = True
            self._moved.set()

    def chunk(self, text: str, *, first: bool) -> Response:
        """Return a chunk that says ``text``; the first one says who speaks."""
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        frame = {key: value for key, value in self._chunks[0].items() if key != "usage"}
        return {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    def rest(self, said: int, identity: Any) -> list[Response]:
        """Return the chunks of this answer without the first ``said`` characters, as of one identity."""
        rest, spoken = [], said > 0
        for chunk in self._chunks:
            for choice in chunk.get("choices", ()):
                delta = choice.get("delta") or {}
                text = delta.get("content") or ""
                if spoken:
                    delta.pop("role", None)
                if text:
                    delta["content"] = text[said:]
                said -= min(said, len(text))
            rest.append({**chunk, "id": identity})
        return rest


def _rank(choice: dict[str, Any]) -> tuple[bool, float]:
    return choice.get("finish_reason") != "length", _likelihood(choice)


def _likelihood(choice: dict[str, Any]) -> float:
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    return sum(float(token["logprob"]) for token in tokens)
