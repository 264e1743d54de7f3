"""``vllm-agent batch`` on real vLLM and the embedded model, on the engine that the tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import ChatVLLM
from agent.cli.main import cli

pytestmark = pytest.mark.engine

TASKS: list[dict[str, Any]] = [
    {"id": "sum", "question": "What is 15 * 23?"},
    {"id": "product", "question": "What is 12 * 12?", "tools": ["calculator"]},
    {"id": "plain", "question": "Name a colour.", "tools": []},
    {"id": "broken", "question": "Hi", "graph": "nothing"},
]


def test_a_batch_on_the_embedded_model_answers_calls_tools_and_goes_on(
    real_model: ChatVLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out.jsonl"
    tasks.write_text("".join(f"{json.dumps(task)}\n" for task in TASKS))
    command = ["batch", str(tasks), str(out), "--max-tokens", "48"]

    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1, result.output  # for the broken line
    assert "SmolLM2-135M-Instruct (embedded) · vLLM" in result.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["id"] for record in records] == ["sum", "product", "plain", "broken"]
    *answered, broken = records
    assert "no graph is called 'nothing'" in broken["error"]["message"]
    for record in answered:
        assert record["error"] is None
        assert record["answer"]
        assert record["usage"]["output_tokens"] > 0
    results = [
        [each["content"] for each in record["messages"] if each["role"] == "tool"] for record in answered
    ]
    assert "15 * 23 = 345" in results[0]
    assert "12 * 12 = 144" in results[1]
    assert results[2] == []

    before = out.read_bytes()
    assert CliRunner().invoke(cli, command).exit_code == 1
    assert out.read_bytes() == before  # nothing was run again
