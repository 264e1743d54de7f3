"""How a text is continued: every argument of ``VLLM`` that a call may change, checked, as a wire request.

The constructor and each call check their arguments with the same record, so a contradiction is refused
before an engine is asked, wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from agent.chat.characters import whole
from agent.chat.checked import CheckedArguments

_BEAMS = 4  # the width of a beam search for which neither n nor best_of asks for more

# What a beam search has no use for: it draws no lots.
_NOT_FOR_BEAMS = (
    *("temperature", "top_p", "top_k", "min_p", "seed"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)
# What would change the answer, and vLLM's beam search leaves out in silence.
_REFUSED_FOR_BEAMS = (
    *("structured_outputs", "response_format", "logit_bias", "bad_words", "min_tokens", "stop_token_ids"),
)


class TextSampling(CheckedArguments):
    """The arguments of one continuation; the documentation of most is at :class:`agent.VLLM`."""

    other_names: ClassVar[dict[str, str]] = {"max_tokens": "max_new_tokens"}

    max_new_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=-1, ge=-1)
    n: int = Field(default=1, ge=1)
    best_of: int | None = Field(default=None, ge=1)
    use_beam_search: bool = False
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    stop: list[Annotated[str, Field(min_length=1)]] | None = None
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0)
    seed: int | None = None

    # Per call only; vLLM's own defaults where they are None.
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    length_penalty: float | None = None
    min_tokens: int | None = Field(default=None, ge=0)
    stop_token_ids: list[int] | None = None
    logit_bias: dict[str, float] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    structured_outputs: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        problem = ""
        if self.best_of is not None and self.best_of < self.n:
            problem = f"best_of={self.best_of} sequences are generated, so n={self.n} of them cannot return"
        elif not self.use_beam_search and self.temperature == 0 and self.sequences > 1:
            problem = (
                f"temperature=0 draws no lots, so all {self.sequences} sequences would be the same; raise "
                "temperature, or take use_beam_search=True"
            )
        elif not self.use_beam_search and self.length_penalty is not None:
            problem = f"length_penalty={self.length_penalty} is for use_beam_search=True only"
        elif self.use_beam_search:
            given = {name: getattr(self, name) for name in _REFUSED_FOR_BEAMS}
            given = {name: value for name, value in given.items() if value}
            if given:
                problem = f"beam search cannot take {given}; leave it out, or use_beam_search"
        if problem:
            raise ValueError(problem)
        return self

    @property
    def sequences(self) -> int:
        """How many sequences are generated per prompt; for a beam search its width."""
        if self.best_of is not None:
            return self.best_of
        return max(self.n, _BEAMS) if self.use_beam_search else self.n

    @property
    def ranked(self) -> bool:
        """Whether the best of the sequences return, which is known only when all are whole."""
        return self.use_beam_search or self.best_of is not None

    def ignored(self) -> dict[str, Any]:
        """Return what was set and has no effect on a beam search."""
        if not self.use_beam_search:
            return {}
        defaults = {name: type(self).model_fields[name].default for name in _NOT_FOR_BEAMS}
        return {name: value for name in _NOT_FOR_BEAMS if (value := getattr(self, name)) != defaults[name]}

    def request(self, prompt: str) -> dict[str, Any]:
        """Return the body of a completions request that continues ``prompt``."""
        wire: dict[str, Any] = {
            "prompt": whole(prompt),
            "max_tokens": self.max_new_tokens,
            "n": self.sequences,
            "ignore_eos": self.ignore_eos,
            "logprobs": 0 if self.ranked and self.logprobs is None else self.logprobs,
            "skip_special_tokens": self.skip_special_tokens,
            "add_special_tokens": self.add_special_tokens,
        }
        wire |= self._beam_fields() if self.use_beam_search else self._sampling_fields()
        return _known(wire)

    def _beam_fields(self) -> dict[str, Any]:
        return {
            "use_beam_search": True,
            "temperature": 0.0,
            # Beams are ranked by their likelihood, as the other sequences are, unless asked otherwise.
            "length_penalty": self.length_penalty or 0.0,
            # Counts the end token's probability in; the text does not show it.
            "include_stop_str_in_output": True,
        }

    def _sampling_fields(self) -> dict[str, Any]:
        names = (*_NOT_FOR_BEAMS, *_REFUSED_FOR_BEAMS, "stop")
        wire = {name: getattr(self, name) for name in names}
        return {**wire, "include_stop_str_in_output": self.include_stop_str_in_output}


def _known(wire: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wire.items() if value is not None}
