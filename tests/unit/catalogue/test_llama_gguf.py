"""The converted files hold the same model, under other names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from agent.catalogue.llama_gguf import convert


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("converted")
    source = tmp_path_factory.mktemp("source") / "tiny.gguf"
    tiny_gguf.write_gguf(source, quantised="down_proj.weight")
    convert(source, directory)
    return directory


def test_weights_come_back_in_the_layout_of_engines(converted: Path) -> None:
    found = load_file(converted / "model.safetensors")
    expected = tiny_gguf.engine_weights()
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        assert found[name].dtype == np.float32
        # Q4_1 has 15 steps between the extremes of 32 values; everything else is exact.
        tolerance = 0.3 if name.endswith("down_proj.weight") else 0
        np.testing.assert_allclose(found[name], weights, rtol=0, atol=tolerance, err_msg=name)


def test_configuration_is_what_the_file_says(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] == tiny_gguf.HIDDEN
    assert config["head_dim"] * config["num_attention_heads"] == tiny_gguf.HIDDEN
    assert config["num_key_value_heads"] == tiny_gguf.KV_HEADS
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert config["eos_token_id"] == 2
    generation = json.loads((converted / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    tokenizer = json.loads((converted / "tokenizer_config.json").read_text())
    assert tokenizer["eos_token"] == "<|im_end|>"
    assert tokenizer["model_max_length"] == tiny_gguf.CONTEXT
    assert (converted / "chat_template.jinja").read_text() == tiny_gguf.TEMPLATE


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hi  42", ["hi", "ĠĠ", "4", "2"]),  # digits leave both spaces before them
        ("hi  hi", ["hi", "Ġ", "Ġ", "hi"]),  # a word takes one of them
        ("<|im_start|>hi<|im_end|>", ["<|im_start|>", "hi", "<|im_end|>"]),
    ],
)
def test_tokens(converted: Path, text: str, tokens: list[str]) -> None:
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    encoded = tokenizer.encode(text)
    assert encoded.tokens == tokens
    assert encoded.ids == [tiny_gguf.VOCABULARY.index(token) for token in tokens]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    tiny_gguf.write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "to").mkdir()
    seen: list[tuple[int, int]] = []
    convert(
        tmp_path / "tiny.gguf", tmp_path / "to", progress=lambda _, done, total: seen.append((done, total))
    )
    dones = [done for done, _ in seen]
    assert dones == sorted(dones)
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_pre_tokenizer_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gguf.GGUFWriter.add_tokenizer_pre", lambda self, _: self.add_string("tokenizer.ggml.pre", "other")
    )
    tiny_gguf.write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="'other'"):
        convert(tmp_path / "tiny.gguf", tmp_path / "to")
