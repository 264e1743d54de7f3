"""The arguments of ``ChatVLLM``: what each means, which contradict each other, and the engine they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from langchain_core.language_models.chat_models import BaseChatModel
from pydantic import ConfigDict, Field, SecretStr, model_validator

from agent.chat.opening import REMOTE_FIELDS, EngineChoice, given_names, key_from_environment
from agent.engines.base import Engine, StageCallback
from agent.engines.config import configured_context

SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "ignore_eos",
    "logprobs",
    "reasoning_effort",
    "chat_template_kwargs",
)
# What the engine is started with; a server has decided it, and cannot be told by a client.
_LOCAL_FIELDS = (
    *("tool_parser", "reasoning_parser", "chat_template", "tensor_parallel_size", "dtype", "download_dir"),
    *("trust_remote_code", "gpu_memory_utilization", "max_model_len"),
)
# What makes up an engine, and comes from `llm` where that is given.
_ENGINE_FIELDS = {*_LOCAL_FIELDS, *REMOTE_FIELDS, "model", "base_url", "engine", "vllm_kwargs"}
_EMBEDDED_CONTEXT = 8192  # SmolLM2-135M-Instruct


class ChatArguments(BaseChatModel):
    """A chat model's arguments, without the ways to call it, which :class:`~agent.ChatVLLM` adds."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), populate_by_name=True
    )

    llm: Any = Field(default=None, exclude=True, repr=False)
    """A :class:`agent.VLLM` whose engine and settings this model shares; sampling arguments that are given
    here as well come first."""

    model: str | None = None
    """Hub id or local directory, None for the embedded model; with ``base_url`` the name under which the
    server serves it, None where it serves one only."""

    base_url: str | None = None
    """A server's address, for example ``http://localhost:8000/v1``."""

    api_key: SecretStr | None = Field(default_factory=key_from_environment)
    """The server's key; by default that of the environment variable ``VLLM_API_KEY``."""

    timeout: float = Field(default=600.0, gt=0)
    """Seconds that the server may stay silent."""

    max_retries: int = Field(default=2, ge=0)
    """How often a call is tried again when the server certainly did no work for it."""

    engine: Engine | None = Field(default=None, exclude=True, repr=False)
    """An engine that exists already, for example a :class:`~agent.engines.ScriptedEngine`."""

    protocol_choice: Literal["auto", "native", "text"] = Field(default="auto", alias="protocol")
    """How tools are called; ``"auto"`` takes the model's own format where vLLM has a parser for it."""

    tool_parser: str | None = "auto"
    """vLLM's tool parser for the native protocol; ``"auto"`` takes what the model's family needs."""

    reasoning_parser: str | None = "auto"
    """vLLM's reasoning parser; ``"auto"`` takes what the model's family needs, None leaves the model's
    thinking in its answers."""

    chat_template: str | None = None
    """A Jinja chat template, or a path to one, in the place of the model's own."""

    temperature: float = Field(default=1.0, ge=0, le=2)
    """0 is greedy and deterministic."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with this probability in sum."""

    top_k: int = Field(default=-1, ge=-1)
    """The number of most likely tokens to choose from; -1 for all."""

    min_p: float | None = Field(default=None, ge=0, le=1)
    """Leave out tokens that are less likely than this share of the likeliest one."""

    max_tokens: int = Field(default=512, ge=1, alias="max_new_tokens")
    """Tokens per answer at most."""

    n: int = Field(default=1, ge=1)
    """Answers per call; all come back as generations."""

    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """As in vLLM's ``SamplingParams``."""

    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """As in vLLM's ``SamplingParams``."""

    repetition_penalty: float | None = Field(default=None, gt=0)
    """More than 1 makes tokens of the prompt and of the answer less likely."""

    seed: int | None = None
    """Seed of the sampling, for repeatable answers."""

    stop: list[str] | None = None
    """Texts that end an answer; those of a call are added."""

    ignore_eos: bool = False
    """Generate on after the end token, up to ``max_tokens``."""

    logprobs: int | None = Field(default=None, ge=0)
    """Alternatives per token in ``response_metadata["logprobs"]``."""

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much a model thinks that can be told, for example gpt-oss."""

    chat_template_kwargs: dict[str, Any] | None = None
    """What the chat template is given, for example ``{"enable_thinking": False}`` for Qwen 3."""

    streaming: bool = False
    """Whether :meth:`invoke` streams too, so that callbacks see its tokens."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs to split the weights over."""

    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    """Number format of the weights."""

    download_dir: str | None = None
    """Where weights from the hub are stored; None for the hub's own cache."""

    trust_remote_code: bool = False
    """Whether code that comes with a model may run. Never turned on implicitly."""

    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of the card's memory that vLLM may use; None for vLLM's default."""

    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together; None for the model's own limit."""

    vllm_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of ``vllm.EngineArgs``."""

    on_stage: StageCallback | None = Field(default=None, exclude=True, repr=False)
    """Called with each stage of the engine's start."""

    @model_validator(mode="before")
    @classmethod
    def _take_from_llm(cls, values: Any) -> Any:
        if not isinstance(values, dict) or (llm := values.get("llm")) is None:
            return values
        from agent.chat.text import VLLM

        if not isinstance(llm, VLLM):
            msg = f"llm must be an agent.VLLM, whose engine can be shared, got {type(llm).__name__}"
            raise ValueError(msg)
        if twice := sorted(name for name in _ENGINE_FIELDS & values.keys() if values[name] is not None):
            msg = f"llm= brings its engine with it; give {', '.join(twice)} to the VLLM"
            raise ValueError(msg)
        return {**llm.chat_arguments(), **values}

    @model_validator(mode="after")
    def _check_n(self) -> Self:
        if self.streaming and self.n > 1:
            msg = f"streaming=True shows one answer, and n={self.n} were asked for; leave one of them out"
            raise ValueError(msg)
        # Another server may see that differently; vLLM refuses it.
        if self.base_url is None and self.engine is None and self.temperature == 0 and self.n > 1:
            msg = f"temperature=0 draws no lots, so all n={self.n} answers would be one; raise it"
            raise ValueError(msg)
        return self

    def _context_length(self) -> int | None:
        """Return the model's context in tokens where it can be known without starting the engine."""
        if self.max_model_len is not None:
            return self.max_model_len
        if self.engine is not None or self.base_url is not None:
            return None
        return _EMBEDDED_CONTEXT if self.model is None else configured_context(self.model)

    def _opener(self) -> Callable[[], Engine]:
        return EngineChoice(
            model=self.model,
            base_url=self.base_url,
            engine=self.engine,
            remote={name: getattr(self, name) for name in REMOTE_FIELDS},
            local={name: getattr(self, name) for name in _LOCAL_FIELDS},
            vllm_kwargs=self.vllm_kwargs,
            given=given_names(self),
            on_stage=self.on_stage,
        ).opener()
