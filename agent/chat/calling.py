"""How ``ChatVLLM`` is called: whole or streamed, from synchronous and from asynchronous code.

Every way makes the same checked request, and runs on the engine's own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from agent.chat.arguments import SAMPLING_FIELDS, ChatArguments
from agent.chat.chunks import ChunkConverter
from agent.chat.content import refused_media
from agent.chat.expected import Expected
from agent.chat.opening import ends
from agent.chat.options import ChatOptions
from agent.chat.requests import wire_messages, wire_tool_choice, wire_tools
from agent.chat.responses import chat_result
from agent.chat.schemas import for_vllm
from agent.chat.session import Session
from agent.engines.base import Engine, EngineInfo
from agent.errors import ConfigurationError, RequestError

_FOR_TRACING = ("ls_structured_output_format", "structured_output_format", "stream")
"""Arguments that LangChain gives itself."""


class ChatCalls(ChatArguments):
    """The calls of a chat model; :class:`~agent.ChatVLLM` adds its life, its tools and its identity."""

    _session: Session = PrivateAttr()

    def _request(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the checked request of one call; arguments that are None are as the model has them."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        tools, choice = given.pop("tools", None), given.pop("tool_choice", None)
        own = {name: getattr(self, name) for name in SAMPLING_FIELDS}
        for other, name in ChatOptions.other_names.items():
            if other in given:
                own.pop(name, None)
        stops = ends(self.stop, stop, given.pop("stop", None))
        for internal in _FOR_TRACING:
            given.pop(internal, None)
        options = ChatOptions.create("this call is refused", **{**own, **given, "stop": stops})
        request = {"messages": wire_messages(messages), **options.request()}
        if tools:
            request["tools"] = wire_tools(tools)
            request["tool_choice"] = wire_tool_choice(choice, request["tools"])
        elif choice not in (None, "auto", "none", False):
            msg = f"tool_choice={choice!r} asks for a call, and no tools are bound; give them to bind_tools()"
            raise ConfigurationError(msg)
        return request

    async def _fitted(self, request: dict[str, Any]) -> tuple[Engine, dict[str, Any], EngineInfo]:
        """Return the engine, and the request in the form that it understands best."""
        engine, info, _ = await self._session.ready()
        wanted = request.get("model")
        if info.kind in ("in-process", "warm"):  # either is this model's own
            if wanted not in (None, info.model, self.model):
                msg = (
                    f"this model runs {self.model or info.model} in this process, so a call cannot ask for "
                    f"model={wanted!r}; build a ChatVLLM for it"
                )
                raise ConfigurationError(msg)
            request = {name: value for name, value in request.items() if name != "model"}
        if info.kind == "in-process" or info.version.startswith("vLLM"):
            request = for_vllm(request)
        return engine, request, info

    async def _answer(self, request: dict[str, Any]) -> ChatResult:
        engine, fitted, info = await self._fitted(request)
        with _media_refused(fitted, info):
            return chat_result(await engine.chat(fitted), Expected.of(request))

    async def _chunks(self, request: dict[str, Any]) -> AsyncIterator[ChatGenerationChunk]:
        if request["n"] > 1:
            msg = f"a stream shows one answer, and n={request['n']} were asked for; use generate(), or n=1"
            raise ConfigurationError(msg)
        engine, fitted, info = await self._fitted(request)
        converter = ChunkConverter(Expected.of(request))
        source = engine.stream_chat(fitted)
        try:
            with _media_refused(fitted, info):
                async for chunk in source:
                    for converted in converter.convert(chunk):
                        yield converted
            for converted in converter.end():
                yield converted
        finally:
            await source.aclose()  # type: ignore[attr-defined]  # an async generator: frees the slot now

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Leave several answers to one call unstreamed where only a listener would have liked a stream."""
        several = (kwargs.get("n") or self.n) not in (1, True)
        if several and not kwargs.get("stream"):
            return False
        return super()._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._session.loop.run(self._answer(self._request(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = await self._arequest(messages, stop, kwargs)
        loop = await self._session.loop_from_afar()
        return await loop.arun(self._answer(request))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._session.loop.iterate(self._chunks(self._request(messages, stop, kwargs))):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = await self._arequest(messages, stop, kwargs)
        loop = await self._session.loop_from_afar()
        async for chunk in loop.aiterate(self._chunks(request)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _arequest(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        if all(isinstance(message.content, str) for message in messages):
            return self._request(messages, stop, kwargs)
        return await asyncio.to_thread(self._request, messages, stop, kwargs)  # it may read files


@contextmanager
def _media_refused(request: Mapping[str, Any], info: EngineInfo) -> Iterator[None]:
    """Say plainly that a model takes no images, where that is why the engine refuses a request."""
    try:
        yield
    except RequestError as error:
        if refusal := refused_media(error, request, info.model):
            raise refusal from error
        raise
