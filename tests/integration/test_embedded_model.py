"""The real embedded model, as set-up made it, says and splits what the original does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.catalogue.embedded import embedded_model


@pytest.fixture(scope="module")
def directory() -> Path:
    return embedded_model(verify=True)


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def test_special_tokens(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert len(tokenizer) == 49152
    assert tokenizer.model_max_length == 8192
    assert tokenizer.tokenize("<|im_start|>user\nhi<|im_end|>") == [
        "<|im_start|>",
        "user",
        "Ċ",
        "hi",
        "<|im_end|>",
    ]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("15 * 23", ["1", "5", "Ġ*", "Ġ", "2", "3"]),
        ("a  15", ["a", "ĠĠ", "1", "5"]),
        ("[1,\n    2]", ["[", "1", ",", "ĊĠĠĠĠ", "2", "]"]),
    ],
)
def test_digits_stand_alone(tokenizer: Any, text: str, tokens: list[str]) -> None:
    assert tokenizer.tokenize(text) == tokens
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_chat_template(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_answers_a_question_and_stops(directory: Path, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)
    assert model.dtype == torch.float32
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id
