"""What is typed behind `serve MODEL`, taken apart and checked without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigurationError
from agent.serving.flags import check_arguments, check_flags, engine_arguments, flag_words, split_flags

TABLE = [
    {"names": ["--max-model-len"], "bare": False, "kind": None, "choices": None},
    {"names": ["--max-num-seqs"], "bare": False, "kind": "int", "choices": None},
    {"names": ["--gpu-memory-utilization"], "bare": False, "kind": "float", "choices": None},
    {"names": ["--dtype"], "bare": False, "kind": None, "choices": ["auto", "float32"]},
    {"names": ["--enforce-eager", "--no-enforce-eager"], "bare": True, "kind": None, "choices": None},
    {"names": ["--tensor-parallel-size", "-tp"], "bare": False, "kind": "int", "choices": None},
    {"names": ["--compilation-config", "-cc"], "bare": False, "kind": None, "choices": None},
]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(TABLE))
    return path


def test_a_part_of_an_argument_may_follow_the_whole() -> None:
    words = "--compilation-config 3 --compilation-config.mode 2 --hf-overrides {} --hf-overrides.a b"
    assert engine_arguments(split_flags(words.split())) == {
        "compilation_config": {"mode": ("2",)},
        "hf_overrides": {"a": ("b",)},
    }


@pytest.mark.parametrize(
    ("word", "value"), [(".9", 0.9), ("-.5e1", -5.0), ("02", 2), ("+2", 2), ("1.", 1.0), ("4k", "4k")]
)
def test_numbers_are_read_as_vllm_reads_them(word: str, value: Any) -> None:
    read = engine_arguments(split_flags([f"--gpu-memory-utilization={word}"]))["gpu_memory_utilization"]
    assert (read, type(read)) == (value, type(value))


def test_a_value_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--hf-overrides is given JSON that is nested too deeply"):
        engine_arguments(split_flags(["--hf-overrides", "[" * 100_000]))


def test_flags_become_engine_arguments() -> None:
    words = "--max-model-len 4096 -tp 2 --enforce-eager --no-enable-prefix-caching --seed=-1 --max_num_seqs 8"
    assert engine_arguments(split_flags(words.split())) == {
        "max_model_len": 4096,
        "tensor_parallel_size": 2,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "seed": -1,
        "max_num_seqs": 8,
    }
    names = engine_arguments(split_flags(["--served-model-name", "a", "b", "--tool-call-parser", "hermes"]))
    assert names == {"served_model_name": ["a", "b"], "tool_parser": "hermes"}


ARGUMENTS = st.dictionaries(
    st.sampled_from(["max_model_len", "seed", "enforce_eager", "dtype", "hf_overrides"]),
    st.one_of(
        st.integers(0, 10**6),
        st.booleans(),
        st.sampled_from(["float32", "auto"]),
        st.dictionaries(st.sampled_from("ab"), st.integers(), min_size=1),
    ),
)


@given(ARGUMENTS)
def test_engine_arguments_survive_the_way_to_flags_and_back(arguments: dict[str, Any]) -> None:
    assert engine_arguments(split_flags(flag_words(arguments))) == arguments


@pytest.mark.parametrize(
    "words",
    [
        ["--max-model-len", "4k"],
        ["--max_model_len", "1"],
        ["-tp", "2"],
        ["-tp=2"],
        ["--enforce-eager"],
        ["--no-enforce-eager"],
        ["--compilation-config.mode", "3"],
        ["-cc.mode", "3"],
        ["-O3"],
        ["-O", "3"],
        ["--tensor-par", "2"],
    ],
)
def test_flags_that_vllm_takes_are_taken(known: Path, words: list[str]) -> None:
    check_flags(split_flags(words), known)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-modle-len", "4096"], "no flag --max-modle-len; did you mean --max-model-len"),
        (["--max-num-seqs", "many"], "--max-num-seqs many: must be a whole number"),
        (["--gpu-memory-utilization", "most"], "must be a number"),
        (["--dtype", "floaty"], "--dtype floaty: must be one of auto, float32"),
        (["--max-model-len"], "--max-model-len needs a value"),
        (["-xy", "3"], "no flag -xy"),
        (["--max", "3"], "no flag --max"),  # the beginning of two
    ],
)
def test_flags_that_vllm_refuses_are_refused(known: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_flags(split_flags(words), known)


def test_nothing_is_refused_while_the_flags_are_unknown(tmp_path: Path) -> None:
    check_flags(split_flags(["--anything", "1"]), tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    check_flags(split_flags(["--anything", "1"]), tmp_path / "broken.json")


def test_a_value_without_a_flag_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'x' belongs to no flag; the model stands first"):
        split_flags(["x", "--seed", "1"])


def test_an_argument_of_python_is_refused_by_its_own_name(known: Path, tmp_path: Path) -> None:
    check_arguments(["max_model_len"], known)
    check_arguments(["anything"], tmp_path / "none.json")
    with pytest.raises(
        ConfigurationError, match=r"no engine argument .max_modellen.; did you mean max_model_len"
    ):
        check_arguments(["max_modellen"], known)
