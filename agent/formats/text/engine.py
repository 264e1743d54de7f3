"""An engine that calls tools, made of one that only writes text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, TypeAlias

from agent.engines.base import Engine, Request, Response
from agent.engines.loop import together
from agent.formats.around import EngineAround
from agent.formats.text.candidates import comparable, likeliest, stream_likeliest
from agent.formats.text.copying import copied_string_rules, words_of
from agent.formats.text.decision import tools_asked_for
from agent.formats.text.grammar import call_grammar, takes_text
from agent.formats.text.options import with_options
from agent.formats.text.prompt import answer_prompt, call_prompt
from agent.formats.text.reader import MARKER, CallReader
from agent.formats.text.repeats import countable, times_asked_for
from agent.formats.text.unaided import own_decision

Calls: TypeAlias = Literal["each", "one", "any"]
"""How often tools are called; see :func:`agent.formats.text.grammar.call_grammar`."""

_MOST_TOOLS = 4  # that one question can be about


class TextToolEngine(EngineAround):
    """Puts the text protocol on an engine: takes tools in the request, gives calls in the answer.

    Args:
        engine: The engine that writes the text.
        helped: Whether decisions are taken from the model that a small one cannot make; see
            :mod:`agent.formats.text.unaided`.
    """

    def __init__(self, engine: Engine, *, helped: bool = True) -> None:
        super().__init__(engine)
        self._helped = helped

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
        messages = self._call_prompt(request) if tools else answer_prompt(request["messages"])
        return await self._engine.render(_plain(request, messages))

    def _call_prompt(self, request: Request) -> list[Any]:
        return call_prompt(request["messages"], request["tools"], examples=self._helped)

    def _call(self, request: Request) -> dict[str, Any]:
        """Return the request of which the answer may be calls, without what holds it to them."""
        call = _plain(request, self._call_prompt(request))
        call.pop("response_format", None)  # it is about the answer in words
        return call

    async def plan(self, request: Request) -> list[dict[str, Any]]:
        """Return the requests that the engine below would be given, one for each way to answer."""
        return (await self._plan(request))[0]

    async def _plan(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """Return requests without tools, of whose answers the likeliest counts, and whether it has calls."""
        messages, tools = request["messages"], request.get("tools") or ()
        if not self._helped and tools and (own := own_decision(request)):
            return [{**self._call(request), "structured_outputs": own}], True
        asked, calls = await self._choose(request)
        if not asked:
            answer = _plain(request, answer_prompt(messages))
            if tools:  # a small model that has seen calls in the conversation would write more of them
                answer["bad_words"] = [*answer.get("bad_words", ()), MARKER.rstrip(":")]
            return [answer], False
        call = self._call(request)
        words = words_of(messages) if self._helped and comparable(request) else []
        if words and messages[-1]["role"] == "user":
            often = request.get("parallel_tool_calls") is not False and calls != "one"
            asked, calls = await self._as_asked(call, asked, calls, words_of(messages[-1:]), often=often)
        grammars = [call_grammar(asked, calls=calls)]
        if takes_text(grammars[0]) and (strings := copied_string_rules(words)):
            grammars.append(call_grammar(asked, calls=calls, strings=strings))
        return [{**call, "structured_outputs": {"grammar": grammar}} for grammar in grammars], True

    async def _as_asked(
        self, call: Request, tools: Sequence[Any], calls: Calls, question: Sequence[str], *, often: bool
    ) -> tuple[Sequence[Any], Calls]:
        """Return each tool as often (at most once, if not ``often``), and with those optional parameters, as
        the question asks for."""
        if calls == "any" and not any(map(countable, tools)):
            return tools, calls  # the model decides
        times = await times_asked_for(self._engine, call, tools, question) if often else [1] * len(tools)

        async def fixed(tool: Any, count: int) -> list[Any]:
            if count > 1:  # each of them with options of its own
                return [tool] * count
            return [await with_options(self._engine, call, tool, question)]

        asked = await together([*map(fixed, tools, times)])
        return [tool for same in asked for tool in same], "each" if calls == "any" else calls

    async def _choose(self, request: Request) -> tuple[Sequence[Any], Calls]:
        """Return the tools that are to be called, and how often."""
        tools, choice = request.get("tools") or (), request.get("tool_choice", "auto")
        parallel = request.get("parallel_tool_calls")
        if not tools or choice == "none":
            return (), "one"
        if isinstance(choice, dict):
            return [tool for tool in tools if tool["function"]["name"] == choice["function"]["name"]], "one"
        last = request["messages"][-1] if request["messages"] else {}
        if choice == "required" and (len(tools) == 1 or last.get("role") != "user"):
            several: Calls = "each" if len(tools) == 1 and parallel is not False else "one"
            return tools, "any" if parallel else several
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
