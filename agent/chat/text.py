"""``VLLM``: LangChain's text model on vLLM, with every argument at work."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.outputs import GenerationChunk, LLMResult
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator

from agent.chat.characters import whole
from agent.chat.completions import generation_chunks, llm_result
from agent.chat.life import HoldsEngine
from agent.chat.opening import (
    REMOTE_FIELDS,
    EngineChoice,
    ends,
    explain,
    given_names,
    refuse_unknown,
    remote_arguments,
)
from agent.chat.sampling import TextSampling
from agent.chat.session import Session
from agent.engines.base import Engine, Response, StageCallback
from agent.engines.loop import together
from agent.errors import ConfigurationError

with warnings.catch_warnings():
    # It says on import that it is not developed any more; what is used of it is the class to be a kind of.
    warnings.simplefilter("ignore", DeprecationWarning)
    from langchain_community.llms import VLLM as CommunityVLLM

_SAMPLING = tuple(
    name for name in TextSampling.model_fields if name in CommunityVLLM.model_fields or name == "seed"
)
_LOCAL = ("tensor_parallel_size", "dtype", "download_dir", "trust_remote_code")
# What ChatVLLM has as arguments of its own and VLLM takes in vllm_kwargs.
_CHAT_NAMES = ("gpu_memory_utilization", "max_model_len", "tool_parser", "reasoning_parser", "chat_template")


class VLLM(HoldsEngine, CommunityVLLM):  # type: ignore[misc]  # langchain-community is untyped for mypy
    """A text model that runs on vLLM: it continues a text as it stands, without a chat template.

    A drop-in for ``langchain_community.llms.VLLM``, of which it is a kind, with these differences: every
    argument works; it streams, and is as asynchronous as its caller; the engine starts with the first call
    (or :meth:`start`) and is shared with all models of the same configuration, also with a
    :class:`agent.ChatVLLM`; and calls from everywhere are batched continuously in it.

    Example:
        .. code-block:: python

            from agent import VLLM

            with VLLM(temperature=0, max_new_tokens=16) as llm:
                print(llm.invoke("The capital of France is"))

    Args:
        model: Hub id or local directory; empty for the embedded model. With ``base_url`` the name under which
            the server serves it.
        max_new_tokens: Tokens per sequence at most.
        temperature: 0 to 2; 0 is greedy.
        top_p: Nucleus sampling, above 0 up to 1.
        top_k: The number of most likely tokens to choose from; -1 for all.
        n: Sequences per prompt; all come back as generations.
        best_of: Sequences to generate per prompt, of which the ``n`` with the highest cumulative
            log-probability return; for a beam search its width.
        use_beam_search: Search for likely sequences in the place of sampling; without ``best_of`` the width
            is ``n``, and 4 at least. vLLM takes a width up to half its engine argument ``max_logprobs`` (20).
        presence_penalty, frequency_penalty: -2 to 2, as in vLLM's ``SamplingParams``.
        stop: Texts that end a sequence; those of a call are added.
        ignore_eos: Generate on after the end token, up to ``max_new_tokens``.
        logprobs: Alternatives per position in ``generation_info["logprobs"]``, and the chosen token.
        seed: Seed of the sampling, for repeatable texts.
        tensor_parallel_size, dtype, download_dir, trust_remote_code: How the model is loaded.
        vllm_kwargs: Any other argument of ``vllm.EngineArgs``.

    A call takes the sampling arguments too, and further ones of vLLM: ``min_p``, ``repetition_penalty``,
    ``min_tokens``, ``logit_bias``, ``bad_words``, ``structured_outputs`` and all others that
    :class:`~agent.chat.sampling.TextSampling` names.

    Raises:
        ConfigurationError: An argument is out of range or contradicts another.
        ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs to split the weights over."""

    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    """Number format of the weights."""

    trust_remote_code: bool = False
    """Whether code that comes with a model may run. Never turned on implicitly."""

    seed: int | None = None
    """Seed of the sampling; the engine's own is ``vllm_kwargs={"seed": …}``."""

    base_url: str | None = None
    """A server's address, for example ``http://localhost:8000/v1``, in the place of vLLM in this process."""

    api_key: SecretStr | None = None
    """The server's key; by default that of the environment variable ``VLLM_API_KEY``."""

    timeout: float = Field(default=600.0, gt=0)
    """Seconds that the server may stay silent."""

    max_retries: int = Field(default=2, ge=0)
    """How often a call is tried again when the server certainly did no work for it."""

    engine: Engine | None = Field(default=None, exclude=True, repr=False)
    """An engine that exists already, for example a :class:`~agent.engines.ScriptedEngine`."""

    on_stage: StageCallback | None = Field(default=None, exclude=True, repr=False)
    """Called with each stage of the engine's start."""

    _not_copied: ClassVar[frozenset[str]] = frozenset(
        {"engine", "on_stage", "callbacks", "cache", "client", "metadata"}
    )
    _session: Session = PrivateAttr()
    _warned: set[str] = PrivateAttr(default_factory=set)

    def __init__(self, **arguments: Any) -> None:
        refuse_unknown(type(self), arguments)
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise ConfigurationError(explain(error, "VLLM cannot be built")) from error
        sampling = TextSampling.create("VLLM cannot be built", **self._own_sampling())
        self._session = Session(self._choice().opener(), "text", given=self.engine is not None)
        self._warn(sampling)

    @model_validator(mode="before")
    @classmethod
    def validate_environment(cls, values: Any) -> Any:
        """Take the place of the parent's validator, which would load the model; None means the default."""
        if isinstance(values, dict) and values.get("model", "") is None:
            return {name: value for name, value in values.items() if name != "model"}
        return values

    def _choice(self) -> EngineChoice:
        return EngineChoice(
            model=self.model or None,
            base_url=self.base_url,
            engine=self.engine,
            remote=remote_arguments(self),
            local={name: getattr(self, name) for name in _LOCAL},
            vllm_kwargs=self.vllm_kwargs,
            given=given_names(self),
            on_stage=self.on_stage,
        )

    def chat_arguments(self) -> dict[str, Any]:
        """Return the arguments of a :class:`agent.ChatVLLM` with this model's engine and settings."""
        names = {*_LOCAL, *_SAMPLING, *REMOTE_FIELDS, "model", "base_url", "engine", "on_stage"}
        given = {name: getattr(self, name) for name in sorted(names & self.model_fields_set)}
        chat = {name: value for name, value in given.items() if value not in (None, "")}
        if lost := [name for name in ("best_of", "use_beam_search") if chat.pop(name, None)]:
            warnings.warn(f"a chat model has no {' and no '.join(lost)}", stacklevel=2)
        if "max_new_tokens" in chat:
            chat["max_tokens"] = chat.pop("max_new_tokens")
        others = dict(self.vllm_kwargs)
        chat |= {name: others.pop(name) for name in _CHAT_NAMES if name in others}
        return {**chat, "vllm_kwargs": others} if others else chat

    # -- calls ----------------------------------------------------------------------------------------------

    def _own_sampling(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SAMPLING}

    def _sampling(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> TextSampling:
        own = self._own_sampling()
        if "max_tokens" in kwargs:
            own.pop("max_new_tokens")
        sampling = TextSampling.create(
            "this call is refused", **{**own, **kwargs, "stop": ends(self.stop, stop)}
        )
        self._warn(sampling)
        return sampling

    def _warn(self, sampling: TextSampling) -> None:
        """Say once what a beam search leaves out."""
        ignored = {name: value for name, value in sampling.ignored().items() if name not in self._warned}
        if ignored:
            self._warned.update(ignored)
            shown = ", ".join(f"{name}={value!r}" for name, value in ignored.items())
            warnings.warn(f"use_beam_search=True draws no lots, so it ignores {shown}", stacklevel=3)

    async def _answers(self, prompts: Sequence[str], sampling: TextSampling) -> LLMResult:
        """Continue all prompts at once; the engine batches them with whatever else it works on."""
        engine, _ = await self._session.started()
        calls = [engine.complete(sampling.request(prompt)) for prompt in prompts]
        return llm_result(await together(calls), sampling)

    async def _chunks(self, prompt: str, sampling: TextSampling) -> AsyncIterator[GenerationChunk]:
        if sampling.n > 1:
            msg = f"a stream shows one sequence, and n={sampling.n} were asked for; use generate(), or n=1"
            raise ConfigurationError(msg)
        if sampling.ranked:  # the best one is known when all are whole
            result = await self._answers([prompt], sampling)
            best = result.generations[0][0]
            usage = {"token_usage": (result.llm_output or {})["token_usage"]}
            yield GenerationChunk(text=best.text, generation_info={**(best.generation_info or {}), **usage})
            return
        engine, _ = await self._session.started()
        source: AsyncIterator[Response] = engine.stream_complete(sampling.request(prompt))
        counts: Any = None
        ended = False
        try:
            async for chunk in source:
                counts = chunk.get("usage") or counts
                for converted in generation_chunks(chunk, sampling, ended=ended):
                    ended = ended or "finish_reason" in (converted.generation_info or {})
                    yield converted
        finally:
            await source.aclose()  # type: ignore[attr-defined]  # an async generator: frees the slot now
        if isinstance(counts, Mapping):
            yield GenerationChunk(text="", generation_info={"token_usage": counts})

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return self._session.loop.run(self._answers(prompts, self._sampling(stop, kwargs)))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        sampling = self._sampling(stop, kwargs)
        loop = await self._session.loop_from_afar()
        return await loop.arun(self._answers(prompts, sampling))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        sampling = self._sampling(stop, kwargs)
        for chunk in self._session.loop.iterate(self._chunks(prompt, sampling)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        sampling = self._sampling(stop, kwargs)
        loop = await self._session.loop_from_afar()
        async for chunk in loop.aiterate(self._chunks(prompt, sampling)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    # -- counting and identity -----------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of ``text`` by the model's own tokenizer. Starts the engine."""
        if not text:
            return []
        return self._session.loop.run(self._tokens(text))

    async def _tokens(self, text: str) -> list[int]:
        engine, _ = await self._session.started()
        return await engine.render({"prompt": whole(text), "add_special_tokens": False})

    @property
    def _name(self) -> str:
        return self.model or self.base_url or "embedded"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        loaded = {name: getattr(self, name) for name in _LOCAL}
        return {"model": self._name, **loaded, **self._own_sampling(), "vllm_kwargs": self.vllm_kwargs}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params: LangSmithParams = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "vllm"
        params["ls_model_name"] = kwargs.get("model", self._name)
        params["ls_max_tokens"] = kwargs.get("max_new_tokens", self.max_new_tokens)
        return params
