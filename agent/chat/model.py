"""``ChatVLLM``: a LangChain chat model on vLLM, in this process or behind an address."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ValidationError

from agent.chat.arguments import SAMPLING_FIELDS
from agent.chat.batches import ChatBatches
from agent.chat.binding import ChatBinding
from agent.chat.content import with_mime_types
from agent.chat.explaining import Explanation, explanation
from agent.chat.life import HoldsEngine
from agent.chat.opening import explain
from agent.chat.requests import wire_tool_choice, wire_tools
from agent.chat.session import Session
from agent.chat.structured import Method, ask_for_structure, structured
from agent.engines.base import EngineInfo
from agent.errors import ConfigurationError


class ChatVLLM(HoldsEngine, ChatBatches):
    """A chat model that runs on vLLM: in this process, or on a server.

    With ``base_url`` it speaks to a ``vllm serve``, or to another server of OpenAI's chat-completions API.
    Otherwise vLLM runs in this process, with the embedded model where no ``model`` is named. The engine
    starts with the first call and is shared by all models of the same configuration; :meth:`close`, or the
    model as a context manager, frees it.

    Tools are called in the model's own format (``protocol`` "native") where that is understood, and by a
    text protocol where it is not. For a server, ``"auto"`` finds out with one short request: a vLLM server
    that shows tools to its model and parses the calls is spoken to natively, one that does not gets the text
    protocol. Servers other than vLLM are always spoken to natively.

    Calls that a parser misses are recovered from the text where they name a bound tool and fit its schema;
    one that is cut off or broken is in ``invalid_tool_calls``, and is never executed. Reasoning is in
    ``message.content_blocks``, and ``response_metadata["finish_reason"]`` says "length" for an answer that
    was cut off.

    Each sampling argument is one of a call too, with further ones of vLLM: ``min_tokens``, ``logit_bias``,
    ``bad_words``, ``response_format``, ``structured_outputs``, ``thinking_token_budget`` and all others that
    :class:`~agent.chat.options.ChatOptions` names; one that is unknown is refused.

    Example:
        .. code-block:: python

            from agent import ChatVLLM

            with ChatVLLM() as model:
                print(model.invoke("Why is the sky blue?").text)

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.
    """

    _not_copied: ClassVar[frozenset[str]] = frozenset({"llm", "on_stage", "callbacks"})

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise ConfigurationError(explain(error)) from error
        self._session = Session(self._opener(), self.protocol_choice, given=self.engine is not None)
        self._know_context(self._context_length())

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> EngineInfo:
        """Start the engine now, in the place of with the first call, and say what it is."""
        return self._session.loop.run(self._describe())[0]

    @property
    def protocol(self) -> str:
        """``"native"`` or ``"text"``: how this model calls tools. Starts the engine to find out."""
        return self._session.loop.run(self._describe())[1]

    def max_input_tokens(self) -> int | None:
        """Tokens that a request may take beside its answer; None where a server does not say.

        As in :attr:`profile`, which has it from the beginning where it can be known without an engine; where
        only a server knows it, this asks there.
        """
        if self.profile is None:
            self.start()
        return (self.profile or {}).get("max_input_tokens")

    async def _describe(self) -> tuple[EngineInfo, str]:
        _, info, protocol = await self._session.ready()
        self._know_context(info.max_model_len)
        return info, protocol

    def _know_context(self, limit: int | None) -> None:
        if self.profile is None and limit is not None:
            self.profile = {"max_input_tokens": max(1, limit - self.max_tokens)}

    # -- tools ----------------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> ChatBinding:
        """Give the model tools to call.

        Args:
            tools: Functions, LangChain tools, Pydantic classes or JSON schemas.
            tool_choice: ``"auto"`` (the default: answer or call), ``"none"``, ``"required"`` (or ``"any"``),
                or the name of the one tool to call.
            parallel_tool_calls: False for at most one call per answer; otherwise as many as are asked for.
            strict: OpenAI's mark that arguments must fit their schema, passed on; on vLLM they do anyway.
            kwargs: Further arguments of each call.

        Raises:
            ConfigurationError: Two different tools have one name, or ``tool_choice`` names none of them.
        """
        wire = wire_tools(tools, strict=strict)
        if wire:
            kwargs["tools"] = wire
            kwargs["tool_choice"] = wire_tool_choice(tool_choice, wire)
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**kwargs)

    def bind(self, **kwargs: Any) -> ChatBinding:  # type: ignore[override]  # LangChain's class is private
        """Fix arguments of the calls; what is bound stays bound, whatever is bound next."""
        return ChatBinding(bound=self, kwargs=kwargs, config={})

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        tools: Sequence[Any] = (),
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Make the model answer with an object that fits a schema.

        Args:
            schema: A Pydantic class, a ``TypedDict``, a dataclass or another type that Pydantic knows (the
                result is of that type), or a JSON schema (the result is plain JSON).
            method: ``"json_schema"``: the answer is decoded under a grammar of the schema.
                ``"function_calling"``: it is the arguments of a forced call. ``"json_mode"``: it is any JSON
                object, and is checked afterwards; the prompt has to say what is wanted.
            include_raw: Return ``{"raw": message, "parsed": …, "parsing_error": …}`` and raise nothing.
            strict: Passed on to servers other than vLLM.
            tools: Tools that the model may call in the place of the answer, for ``"json_schema"``. With
                ``include_raw`` such calls are in the raw message, and ``parsed`` is None; without it they are
                an error.
            tool_choice: As in :meth:`bind_tools`.
            kwargs: Further arguments of each call.

        Raises:
            ConfigurationError: ``schema`` is none, or the arguments contradict each other.

        The runnable raises :class:`~agent.errors.StructuredOutputError` where an answer was cut off, or
        breaks a rule of the schema that no grammar can hold.
        """
        arguments, parser = ask_for_structure(
            schema, method=method, strict=strict, tools=tools, tool_choice=tool_choice
        )
        parser.may_call = bool(tools) and include_raw
        return structured(self.bind(**kwargs, **arguments), parser, include_raw=include_raw)

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
        elif tool_choice is not None:
            kwargs["tool_choice"] = tool_choice  # refused, as a call would be, where it asks for one
        request = self._request(self._convert_input(messages).to_messages(), None, kwargs)
        return self._session.loop.run(self._explained(request))

    async def _explained(self, request: dict[str, Any]) -> Explanation:
        _, fitted, _ = await self._fitted(request)
        return await explanation(self._session, fitted)

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        """What was asked, as messages; LangChain's errors name neither the value nor what to do."""
        try:
            value = super()._convert_input(model_input)
        except Exception as error:  # of many kinds
            missing = isinstance(error, KeyError)
            why = f"it has no {error}" if missing else str(error).partition("\n")[0]
            msg = (
                f"{reprlib.repr(model_input)} is no input of a chat model ({why}); give a string, a list of "
                "messages or of {'role': …, 'content': …}, or a prompt value"
            )
            raise ConfigurationError(msg) from error
        messages = value.to_messages()
        if not [each for each in messages if type(each.content) is not str]:  # nearly always, and long
            return value
        return ChatPromptValue(messages=[*map(with_mime_types, messages)])

    # -- identity -------------------------------------------------------------------------------------------

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Say that ``langchain_core.load`` can store and build this model."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Leave the key out of what is stored: it is read from this environment variable again."""
        return {"api_key": "VLLM_API_KEY"}

    def to_json(self) -> Any:
        """Return what ``langchain_core.load`` stores; a given engine cannot be stored."""
        return self.to_json_not_implemented() if self.engine is not None else super().to_json()

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
