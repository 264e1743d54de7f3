"""``ChatVLLM``: a LangChain chat model on vLLM, in this process or behind an address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import PrivateAttr, ValidationError

from agent.chat.arguments import SAMPLING_FIELDS, ChatArguments
from agent.chat.explaining import Explanation, explanation
from agent.chat.opening import explain
from agent.chat.requests import sampling, wire_messages, wire_tool_choice, wire_tools
from agent.chat.responses import ChunkConverter, chat_result
from agent.chat.session import Session
from agent.engines.base import EngineInfo
from agent.errors import ConfigurationError
from agent.formats.spans import content_span


class ChatVLLM(ChatArguments):
    """A chat model that runs on vLLM: in this process, or on a server.

    With ``base_url`` it speaks to a ``vllm serve``, or to another server of OpenAI's chat-completions API.
    Otherwise vLLM runs in this process, with the embedded model where no ``model`` is named. The engine
    starts with the first call and is shared by all models of the same configuration; :meth:`close`, or the
    model as a context manager, frees it.

    Tools are called in the model's own format (``protocol`` "native") where that is understood, and by a
    text protocol where it is not. For a server, ``"auto"`` finds out with one short request: a vLLM server
    that shows tools to its model and parses the calls is spoken to natively, one that does not gets the text
    protocol. Servers other than vLLM are always spoken to natively.

    Example:
        .. code-block:: python

            from agent import ChatVLLM

            with ChatVLLM() as model:
                print(model.invoke("Why is the sky blue?").text)

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.
    """

    _session: Session = PrivateAttr()

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise ConfigurationError(explain(error)) from error
        self._session = Session(self._opener(), self.protocol_choice)
        if self.profile is None and (limit := self._context_length()) is not None:
            self.profile = {"max_input_tokens": max(1, limit - self.max_tokens)}

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> EngineInfo:
        """Start the engine now, in the place of with the first call, and say what it is."""
        return self._session.loop.run(self._describe())[0]

    @property
    def protocol(self) -> str:
        """``"native"`` or ``"text"``: how this model calls tools. Starts the engine to find out."""
        return self._session.loop.run(self._describe())[1]

    async def _describe(self) -> tuple[EngineInfo, str]:
        _, info, protocol = await self._session.ready()
        return info, protocol

    def close(self) -> None:
        """Give the engine back; the last model on it frees its memory. May be called twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # -- tools ----------------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Give the model tools to call.

        Args:
            tools: Functions, LangChain tools, Pydantic classes or JSON schemas.
            tool_choice: ``"auto"`` (the default: answer or call), ``"none"``, ``"required"`` (or ``"any"``),
                or the name of the one tool to call.
            parallel_tool_calls: False for at most one call per answer.
            kwargs: Further arguments of each call.

        Raises:
            ConfigurationError: Two different tools have one name, or ``tool_choice`` names none of them.
        """
        wire = wire_tools(tools)
        if wire:
            kwargs["tools"] = wire
            kwargs["tool_choice"] = wire_tool_choice(tool_choice, wire)
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**kwargs)

    # -- calls ----------------------------------------------------------------------------------------------

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in SAMPLING_FIELDS} | dict(kwargs)
        tools, choice = options.pop("tools", None), options.pop("tool_choice", None)
        for internal in ("ls_structured_output_format", "stream"):  # for LangChain's own tracing
            options.pop(internal, None)
        if "max_new_tokens" in options:
            options["max_tokens"] = options.pop("max_new_tokens")
        ends = [*(self.stop or ()), *(stop or ())]
        request = {"messages": wire_messages(messages), **sampling(options)}
        if ends:
            request["stop"] = list(dict.fromkeys(ends))
        if tools:
            request["tools"] = tools
            request["tool_choice"] = wire_tool_choice(choice, tools)
        return request

    async def _answer(self, request: dict[str, Any]) -> ChatResult:
        engine, _, _ = await self._session.ready()
        return chat_result(await engine.chat(request))

    async def _chunks(self, request: dict[str, Any]) -> AsyncIterator[ChatGenerationChunk]:
        engine, _, _ = await self._session.ready()
        converter = ChunkConverter()
        source = engine.stream_chat(request)
        try:
            async for chunk in source:
                for converted in converter.convert(chunk):
                    yield converted
        finally:
            await source.aclose()  # type: ignore[attr-defined]  # an async generator: frees the slot now

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
        return await self._session.loop.arun(self._answer(self._request(messages, stop, kwargs)))

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
        source = self._session.loop.aiterate(self._chunks(self._request(messages, stop, kwargs)))
        async for chunk in source:
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def explain(
        self,
        messages: LanguageModelInput,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool] = (),
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Explanation:
        """Return the exact prompt, protocol and grammar of a call, without making it. Starts the engine.

        Args:
            messages: What :meth:`invoke` takes.
            tools: As for :meth:`bind_tools`.
            tool_choice: As for :meth:`bind_tools`.
            kwargs: Further arguments of the call.

        Raises:
            RequestError: The engine refuses the call, or has no prompts to explain.
        """
        if tools:
            kwargs["tools"] = wire_tools(tools)
            kwargs["tool_choice"] = wire_tool_choice(tool_choice, kwargs["tools"])
        request = self._request(self._convert_input(messages).to_messages(), None, kwargs)
        return self._session.loop.run(explanation(self._session, request))

    # -- counting ------------------------------------------------------------------------------------------

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return the number of tokens of the prompt that these messages and tools make, exactly.

        The engine renders the prompt and does not run it. Starts the engine.
        """
        request: dict[str, Any] = {"messages": wire_messages(list(messages))}
        if tools:
            request["tools"] = wire_tools(tools)
        return len(self._session.loop.run(self._prompt(request)))

    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of ``text`` as the content of a message. Starts the engine."""
        prompt, frame = (
            self._session.loop.run(self._prompt({"messages": [{"role": "user", "content": content}]}))
            for content in (text, "")
        )
        return prompt[content_span(prompt, frame)]

    async def _prompt(self, request: dict[str, Any]) -> list[int]:
        engine, _, _ = await self._session.ready()
        return await engine.render(request)

    # -- identity -------------------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "vllm-chat"

    @property
    def _name(self) -> str:
        return self.model or self.base_url or "embedded"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self._name, **{f: getattr(self, f) for f in SAMPLING_FIELDS}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "vllm"
        params["ls_model_name"] = kwargs.get("model", self._name)
        return params


def create_vllm_chat_model(
    download_dir: str | None = None,
    gpu_memory_utilization: float = 0.8,
    max_model_len: int = 8192,
    top_k: int = 5,
    max_tokens: int = 512,
    temperature: float = 0.7,
    model: str | None = None,
    **options: Any,
) -> ChatVLLM:
    """Build a chat model in one line, with settings that suit an agent on one card.

    Args:
        download_dir: Where weights from the hub are stored; None for the hub's own cache.
        gpu_memory_utilization: Share of the card's memory that vLLM may use.
        max_model_len: Tokens of prompt and answer together.
        top_k: The number of most likely tokens to choose from.
        max_tokens: Tokens per answer at most.
        temperature: 0 is greedy.
        model: Hub id or local directory; None for the embedded model.
        options: Any other argument of :class:`ChatVLLM`. With ``base_url`` the first three arguments are left
            to the server.

    Raises:
        ConfigurationError, ModelNotFoundError: As :class:`ChatVLLM`.
    """
    if options.get("base_url") is None:  # a server has decided these
        options |= {
            "download_dir": download_dir,
            "gpu_memory_utilization": gpu_memory_utilization,
            "max_model_len": max_model_len,
        }
    return ChatVLLM(
        top_k=top_k,
        max_tokens=max_tokens,
        temperature=temperature,
        model=model,
        **options,
    )
