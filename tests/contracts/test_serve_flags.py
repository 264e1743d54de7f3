"""Our table of the flags of `vllm serve` beside vLLM's own parser, and that parser's errors as ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.engines.inprocess.http import known_flags, parsed_flags
from agent.errors import ConfigurationError
from agent.serving.flags import check_flags, engine_arguments, split_flags

TAKEN = [
    ["--host", "0.0.0.0", "--port", "9000"],
    ["--gpu-memory-utilization", "0.8", "--tensor-parallel-size", "2", "--max-model-len", "4k"],
    ["-tp", "2", "-pp", "2", "-dp", "2", "--quantization", "awq", "--dtype", "bfloat16"],
    ["--kv-cache-dtype", "fp8", "--trust-remote-code", "--seed", "-1"],
    ["--max_model_len", "auto", "--no-enable-prefix-caching", "-O3"],
    ["--max-num-seqs", "1_000", "--gpu-memory-utilization", "infinity"],
    ["--compilation-config.mode", "3", "--hf-overrides", '{"a": 1}'],
    ["--served-model-name", "a", "b", "--enable-lora", "--lora-modules", "x=/y"],
    ["--tool-call-parser", "hermes", "--enable-auto-tool-choice"],
]
REFUSED = [
    (["--max-modle-len", "4096"], "did you mean --max-model-len"),
    (["--dtype", "floaty"], "must be one of|invalid choice"),
    (["--tensor-parallel-size", "two"], "whole number|invalid int"),
    (["--max-num-seqs"], "needs a value|expected one argument"),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flags") / "flags.json"
    path.write_text(json.dumps(known_flags()))
    return path


@pytest.mark.parametrize("words", TAKEN, ids=" ".join)
def test_both_take_what_vllm_takes(table: Path, words: list[str]) -> None:
    parsed_flags(["--model", "m", *words])
    check_flags(split_flags(words), table)


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=str)
def test_both_refuse_what_vllm_refuses(table: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parsed_flags(["--model", "m", *words])
    with pytest.raises(ConfigurationError, match=message):
        check_flags(split_flags(words), table)


def test_every_flag_of_vllm_is_known(table: Path) -> None:
    for flag in known_flags():
        for name in flag["names"]:
            value = [] if flag["bare"] else [(flag["choices"] or ["1"])[0]]
            check_flags(split_flags([name, *value]), table)


@pytest.mark.parametrize("words", TAKEN, ids=" ".join)
def test_engine_arguments_are_read_as_vllm_reads_them(words: list[str]) -> None:
    parsed = parsed_flags(["--model", "m", *words])
    for name, value in engine_arguments(split_flags(words)).items():
        theirs = getattr(parsed, {"tool_parser": "tool_call_parser"}.get(name, name), None)
        if isinstance(value, (int, float, bool)) and theirs is not None:
            assert theirs == value, name


def test_a_model_behind_its_flags_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the model stands first"):
        parsed_flags(["--model", "m", "tag", "--seed", "1", "other"])
