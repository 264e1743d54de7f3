"""What is read of a model's directory before an engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import ChatVLLM


@pytest.mark.parametrize("text", ["[]", "null", "7", '{"text_config": [1]}', "{", ""])
def test_a_strange_configuration_is_left_to_vllm(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert not ChatVLLM(model=str(tmp_path)).profile
