"""What is read of a model's directory before an engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import ChatVLLM
from agent.engines import EngineConfig
from agent.errors import ConfigurationError


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "7",
        '{"text_config": [1]}',
        "{",
        "",
        '{"max_position_embeddings": 0}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_strange_configuration_is_left_to_vllm(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert not ChatVLLM(model=str(tmp_path)).profile


def test_an_argument_that_holds_itself_is_refused() -> None:
    around: list[object] = []
    around.append(around)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in around, deep:
        with pytest.raises(ConfigurationError, match="nested too deeply"):
            EngineConfig.create("owner/name", hf_overrides=value)
