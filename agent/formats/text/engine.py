"""An engine that calls tools, made of one that only writes text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, TypeAlias

from agent.engines.base import Request, Response
from agent.formats.around import EngineAround
from agent.formats.text.candidates import comparable, likeliest, stream_likeliest
from agent.formats.text.copying import copied_string_rules, words_of
from agent.formats.text.decision import tools_asked_for
from agent.formats.text.grammar import call_grammar, takes_text
from agent.formats.text.options import with_options
from agent.formats.text.prompt import answer_prompt, call_prompt
from agent.formats.text.reader import MARKER, CallReader
from agent.formats.text.repeats import countable, times_asked_for

Calls: TypeAlias = Literal["each", "one", "any"]
"""How often tools are called; see :func:`agent.formats.text.grammar.call_grammar`."""

_MOST_TOOLS = 4  # that one question can be about


class TextToolEngine(EngineAround):
    """Puts the text protocol on an engine: takes tools in the request, gives calls in the answer.

    Args:
        engine: The engine that writes the text.
    """

    async def chat(self, request: Request) -> Response:
        """Answer one request whole; see :class:`agent.engines.base.Engine`."""
        requests, calls = await self._plan(request)
        response = await likeliest(self._engine, requests)
        if calls:
            for choice in response["choices"]:
                _read_choice(choice)
        return response

    async def stream_chat(self, request: Request) -> AsyncIterator[Response]:
        """Answer one request in chunks; see :class:`agent.engines.base.Engine`."""
        requests, calls = await self._plan(request)
        source = stream_likeliest(self._engine, requests)
        readers: dict[int, CallReader] = {}
        try:
            async for chunk in source:
                if not calls:
                    yield chunk
                    continue
                for part in _read_chunk(chunk, readers):
                    yield part
        finally:
            await source.aclose()  # type: ignore[attr-defined]  # an async generator: frees the slot now

    async def render(self, request: Request) -> list[int]:
        """Return the token ids of the prompt; see :class:`agent.engines.base.Engine`."""
        if "prompt" in request:
            return await self._engine.render(request)
        tools = request.get("tools") or ()
        messages = call_prompt(request["messages"], tools) if tools else answer_prompt(request["messages"])
        return await self._engine.render(_plain(request, messages))

    async def plan(self, request: Request) -> list[dict[str, Any]]:
        """Return the requests that the engine below would be given, one for each way to answer."""
        return (await self._plan(request))[0]

    async def _plan(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """Return requests without tools, of whose answers the likeliest counts, and whether it has calls."""
        messages, tools = request["messages"], request.get("tools") or ()
        asked, calls = await self._choose(request)
        if not asked:
            answer = _plain(request, answer_prompt(messages))
            if tools:  # a small model that has seen calls in the conversation would write more of them
                answer["bad_words"] = [*answer.get("bad_words", ()), MARKER.rstrip(":")]
            return [answer], False
        call = _plain(request, call_prompt(messages, tools))
        call.pop("response_format", None)  # it is about the answer in words
        words = words_of(messages) if comparable(request) else []
        if words and messages[-1]["role"] == "user":
            asked, calls = await self._as_asked(call, asked, calls, words_of(messages[-1:]))
        grammars = [call_grammar(asked, calls=calls)]
        if takes_text(grammars[0]) and (strings := copied_string_rules(words)):
            grammars.append(call_grammar(asked, calls=calls, strings=strings))
        return [{**call, "structured_outputs": {"grammar": grammar}} for grammar in grammars], True

    async def _as_asked(
        self, call: Request, tools: Sequence[Any], calls: Calls, question: Sequence[str]
    ) -> tuple[Sequence[Any], Calls]:
        """Return each tool as often, and with those optional parameters, as the question asks for."""
        if calls == "any":
            if len(tools) > 1 or not countable(tools[0]):
                return tools, calls  # the model decides
            times = await times_asked_for(self._engine, call, tools[0], question)
            if times > 1:  # each of them with options of its own
                return [*tools] * times, "each"
        fixed = await asyncio.gather(*(with_options(self._engine, call, tool, question) for tool in tools))
        return fixed, "each" if calls == "any" else calls

    async def _choose(self, request: Request) -> tuple[Sequence[Any], Calls]:
        """Return the tools that are to be called, and how often."""
        tools, choice = request.get("tools") or (), request.get("tool_choice", "auto")
        parallel = request.get("parallel_tool_calls")
        if not tools or choice == "none":
            return (), "one"
        if isinstance(choice, dict):
            return [tool for tool in tools if tool["function"]["name"] == choice["function"]["name"]], "one"
        if choice == "required" and (len(tools) == 1 or request["messages"][-1]["role"] != "user"):
            return tools, "any" if parallel else "one"
        most = 1 if parallel is False else _MOST_TOOLS
        asked = await tools_asked_for(
            self._engine, request["messages"], tools, least=int(choice == "required"), most=most
        )
        return asked, "any" if parallel else "each"


def _plain(request: Request, messages: Sequence[Any]) -> dict[str, Any]:
    dropped = ("tools", "tool_choice", "parallel_tool_calls")
    return {key: value for key, value in request.items() if key not in dropped} | {"messages": messages}


def _read_choice(choice: dict[str, Any]) -> None:
    """Move the calls from the text of one choice to its ``tool_calls``."""
    message = choice["message"]
    reader = CallReader()
    content, calls = "", dict[int, dict[str, Any]]()
    for delta in [*reader.feed(message.get("content") or ""), *reader.finish()]:
        content += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            known = calls.setdefault(call["index"], {"function": {"arguments": ""}})
            arguments = known["function"]["arguments"] + call["function"]["arguments"]
            known.update({key: value for key, value in call.items() if key in ("id", "type")})
            known["function"] = {**known["function"], **call["function"], "arguments": arguments}
    message["content"] = content
    if calls:
        message["tool_calls"] = list(calls.values())
        choice["finish_reason"] = _finish(choice.get("finish_reason"))


def _read_chunk(chunk: Response, readers: dict[int, CallReader]) -> list[Response]:
    """Turn one chunk of text into chunks of content and of calls."""
    if not chunk.get("choices"):
        return [chunk]
    parts = []
    for choice in chunk["choices"]:
        reader = readers.setdefault(choice["index"], CallReader())
        delta = choice.get("delta") or {}
        deltas = reader.feed(delta.get("content") or "")
        finish = choice.get("finish_reason")
        if finish:
            deltas += reader.finish()
            finish = _finish(finish) if reader.calls else finish
        others = {key: value for key, value in delta.items() if key != "content"}
        kept = {key: value for key, value in choice.items() if key not in ("delta", "finish_reason")}
        if others:
            deltas.insert(0, others)
        for position, one in enumerate(deltas or [{}]):
            last = position == len(deltas or [{}]) - 1
            part = {**(kept if last else {"index": choice["index"]}), "delta": one}
            parts.append({**chunk, "choices": [{**part, "finish_reason": finish if last else None}]})
    return parts


def _finish(reason: str | None) -> str | None:
    return "tool_calls" if reason == "stop" else reason
