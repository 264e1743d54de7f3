"""The models noun: what a person reads, and what a program gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_doubles import Terminal

LOG = """\
INFO non-default args: {'model_tag': 'Qwen/Qwen2.5-3B-Instruct', 'max_model_len': 4096, 'max_num_seqs': 8}
INFO Model loading took 5.79 GiB memory and 3.2 seconds
INFO Available KV cache memory: 6.76 GiB
INFO GPU KV cache size: 196,896 tokens, Maximum concurrency for 4,096 tokens per request: 48.07x
INFO Free memory on device (15.20/15.45 GiB) on startup. Desired GPU memory utilization is (0.9, 13.91 GiB).
"""


def test_models_are_listed_with_a_verdict(terminal: Terminal) -> None:
    result = terminal.run("models", "list", "--task", "reranker")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "task", "size", "context", "weights", "requests", "verdict", "why"]
    assert any(line.startswith("BAAI/bge-reranker-v2-m3") and "recommended" in line for line in lines)
    assert "RTX 5080 (15.48 GiB)" in result.stderr
    large = terminal.json("models", "list", "--min-size", "60B", "--fits")
    assert large == []
    small = terminal.json(
        "models", "list", "--family", "qwen 3", "--max-size", "2B", "--gpu", "RTX 4090", "--fits"
    )
    assert {each["id"] for each in small} >= {"Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"}
    assert all(each["verdict"] in ("recommended", "fits") for each in small)
    assert terminal.run("models", "list", "--max-size", "large").exit_code == 2


def test_a_plan_has_a_verdict_a_bar_and_a_command(terminal: Terminal) -> None:
    shown = terminal.run("models", "fit", "Qwen3-4B").stdout
    assert shown.startswith("Qwen/Qwen3-4B on RTX 5080 (15.48 GiB)\nrecommended: at least")
    bar = next(line for line in shown.splitlines() if line.startswith("▕"))
    assert len(bar) == 74
    assert all(mark in bar for mark in "█▓▒░·")
    assert "  vllm serve Qwen/Qwen3-4B \\\n    --max-model-len 8192 \\" in shown
    record = terminal.json("models", "fit", "Qwen3-4B", "--max-model-len", "40960")
    assert record["verdict"] == "may work"
    assert record["kv_tokens"]["low"] < record["kv_tokens"]["high"]


def test_what_does_not_fit_says_what_would(terminal: Terminal) -> None:
    shown = terminal.run("models", "fit", "Qwen3-8B").stdout
    assert "won't work: weights and overhead leave no room" in shown
    assert "GiB missing of 13.93" in shown
    assert "What would help:" in shown
    assert "vllm serve" not in shown


def test_a_checkpoint_of_another_name_is_not_confused_with_the_model(terminal: Terminal) -> None:
    shown = terminal.run("models", "fit", "Qwen3-8B", "-q", "awq").stdout
    assert "vllm serve CHECKPOINT" in shown


def test_a_log_is_compared(terminal: Terminal, tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(LOG)
    shown = terminal.run("models", "fit", "--compare", str(log)).stdout
    assert "196,896 tokens" in shown
    assert "inside the band" in shown
    assert "With that learned:" in " ".join(shown.split())
    record = terminal.json("models", "fit", "--compare", str(log))
    assert {each["name"] for each in record["differences"]} == {"weights", "KV cache", "requests at once"}
    assert abs(record["calibrated"]["kv_tokens"]["mid"] / 196_896 - 1) < 0.002
    log.write_text("nothing")
    assert terminal.run("models", "fit", "Qwen3-8B", "--compare", str(log)).exit_code == 1


def test_a_model_is_shown_and_cards_are_listed(terminal: Terminal) -> None:
    shown = terminal.run("models", "show", "qwen3-embedding-8b").stdout
    assert "query prompt" in shown
    assert "Apache-2.0" in shown
    assert terminal.json("models", "show", "gpt-oss-20b")["tool_parser"] == "openai"
    cards = terminal.json("models", "cards")
    assert {card["name"] for card in cards} >= {"CPU", "RTX 5080", "H100"}
    assert "RTX 5080" in terminal.run("models", "cards").stdout


def test_errors_are_one_line(terminal: Terminal) -> None:
    for arguments in (("fit", "Qwen3-8"), ("fit", "Qwen3-8B", "--gpu", "nothing"), ("show", "nothing")):
        result = terminal.run("models", *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
    assert terminal.run("models", "fit").exit_code == 2


@pytest.mark.parametrize("free", ["nan", "inf"])
def test_free_memory_is_a_number(terminal: Terminal, free: str) -> None:
    refused = terminal.run("models", "fit", "Qwen3-8B", "--free", free)
    assert refused.exit_code == 2
    assert "must be a number of GiB" in refused.stderr


def test_no_flag_of_an_advice_is_cut_off(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("agent.cli.console.terminal_width", lambda: 60)
    monkeypatch.setattr("agent.cli.fit_view.terminal_width", lambda: 60)
    shown = terminal.run("models", "fit", "Qwen3-8B").stdout
    assert "--tensor-parallel-size 2" in shown
    assert "--quantization fp8" in shown
