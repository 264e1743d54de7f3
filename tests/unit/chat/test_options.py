"""The arguments of one call: checked like the fields, and sent under vLLM's names."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chat.arguments import SAMPLING_FIELDS, ChatArguments
from agent.chat.options import WIRE_NAMES, ChatOptions
from agent.errors import ConfigurationError


def create(**arguments: Any) -> ChatOptions:
    return ChatOptions.create("this call is refused", **arguments)


def test_logprobs_are_two_fields_on_the_wire() -> None:
    wire = create(logprobs=5).request()
    assert (wire["logprobs"], wire["top_logprobs"]) == (True, 5)
    assert create(logprobs=0).request()["top_logprobs"] == 0
    assert "top_logprobs" not in create().request()


def test_what_is_none_is_left_to_the_engine() -> None:
    assert None not in create(seed=None, stop=None).request().values()
    assert "seed" not in create(seed=None).request()


def test_other_names_of_the_same() -> None:
    assert create(max_new_tokens=3).max_tokens == create(max_completion_tokens=3).max_tokens == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"temprature": 0.1}, r"'temprature' \(value 0\.1\); did you mean temperature\?"),
        ({"repetition_penality": 1.1}, "did you mean repetition_penalty"),
        ({"xyzzy": 1}, "known are temperature, "),
        ({"best_of": 3}, r"VLLM\(best_of=…\)"),
        ({"use_beam_search": True}, "VLLM"),
        ({"vllm_kwargs": {}}, "when the model is built"),
        ({"temperature": 3}, "temperature=3"),
        ({"top_p": 0}, "top_p=0"),
        ({"min_p": 2}, "min_p=2"),
        ({"n": 0}, "n=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"stop": [""]}, "stop"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
        ({"reasoning_effort": "much"}, "reasoning_effort='much'"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        create(**arguments)


def test_fields_and_calls_have_the_same_limits() -> None:
    for name in SAMPLING_FIELDS:
        field, option = ChatArguments.model_fields[name], ChatOptions.model_fields[name]
        assert (field.default, field.metadata, field.annotation) == (
            option.default,
            option.metadata,
            option.annotation,
        ), name


def test_every_argument_has_its_name_on_the_wire() -> None:
    assert set(create(logprobs=1, seed=1).request()) - {"top_logprobs"} <= set(WIRE_NAMES)
