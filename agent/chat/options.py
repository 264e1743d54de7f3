"""What one call of ``ChatVLLM`` may change, checked, as the fields of a chat-completions request."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from agent.chat.checked import CheckedArguments

_ELSEWHERE = {
    "best_of": "a chat model has none; take n= and choose, or VLLM(best_of=…) for a text",
    "use_beam_search": "a chat model has none; VLLM(use_beam_search=True) continues a text with it",
    "vllm_kwargs": "it is decided when the model is built, not by a call",
    "config": "give it as invoke(…, config=…)",
    "functions": "give them to bind_tools()",
}


class ChatOptions(CheckedArguments):
    """The arguments of one call; the documentation of most is at :class:`agent.ChatVLLM`.

    The names are those of vLLM's chat-completions request, but for ``logprobs``, which is a number here.
    """

    other_names: ClassVar[dict[str, str]] = {
        "max_new_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
    }
    not_here: ClassVar[dict[str, str]] = _ELSEWHERE

    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=-1, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    n: int = Field(default=1, ge=1)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0)
    seed: int | None = None
    stop: list[Annotated[str, Field(min_length=1)]] | None = None
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0)

    # Per call only; vLLM's own defaults where they are None.
    min_tokens: int | None = Field(default=None, ge=0)
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    logit_bias: dict[str, float] | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    structured_outputs: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    # Thinking, and what the chat template is given.
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking_token_budget: int | None = Field(default=None, ge=0)
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # Which model answers, and when.
    model: str | None = None
    priority: int | None = None
    cache_salt: str | None = Field(default=None, min_length=1)

    def request(self) -> dict[str, Any]:
        """Return the fields of the request; what is None is left to the engine."""
        wire = {name: value for name, value in self if value is not None}
        if "logprobs" in wire:
            wire["top_logprobs"] = wire["logprobs"]
            wire["logprobs"] = True
        return wire


WIRE_NAMES = tuple(name for name in ChatOptions.model_fields)
"""Names of the fields that :meth:`ChatOptions.request` may write."""
