"""The cards of this machine, and what a log of vLLM teaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import plan_fit
from agent.catalogue import hardware
from agent.catalogue.cards import Card
from agent.catalogue.hardware import cpu, machine_cards, read_query
from agent.catalogue.logs import calibrate, compare, read_log
from agent.doctor.device import check_device
from agent.errors import ConfigurationError

# The lines of a start on an RTX 5060 Ti (choisungwook/portfolio), in the words of vLLM 0.26.
LOG = "\n".join(
    [
        "(APIServer pid=1) INFO 10-01 non-default args: "
        "{'model_tag': 'Qwen/Qwen2.5-3B-Instruct', 'max_model_len': 4096, 'max_num_seqs': 8}",
        "(EngineCore pid=7) INFO [gpu_model_runner.py] Model loading took 5.79 GiB memory and 3.2 seconds",
        "(EngineCore pid=7) INFO 10-01 [gpu_worker.py:436] Available KV cache memory: 6.76 GiB",
        "(EngineCore pid=7) \x1b[1mINFO\x1b[0m 10-01 GPU KV cache size: 196,896 tokens, "
        "Maximum concurrency for 4,096 tokens per request: 48.07x",
        "INFO Free memory on device (15.20/15.45 GiB) on startup. Desired GPU memory "
        "utilization is (0.9, 13.91 GiB). Actual usage is 6.05 GiB for consumed memory (weights + "
        "non-torch), "
        "1.1 GiB for peak activation, and 0.23 GiB for CUDAGraph memory.",
    ]
)
OLD = (
    "INFO the current vLLM instance can use total_gpu_memory (23.58GiB) x gpu_memory_utilization (0.90) = "
    "21.22GiB\n"
    "INFO model weights take 14.99GiB; non_torch_memory takes 0.35GiB; PyTorch activation peak memory takes "
    "2.07GiB; the rest of the memory reserved for KV Cache is 3.81GiB.\n"
)


def test_a_log_is_read_whatever_its_age() -> None:
    logged = read_log(LOG)
    assert (logged.weights_gib, logged.kv_gib, logged.kv_tokens) == (5.79, 6.76, 196_896)
    assert (logged.concurrency, logged.max_model_len, logged.utilization) == (48.07, 4096, 0.9)
    assert (logged.total_gib, logged.free_gib, logged.graphs_gib) == (15.45, 15.20, 0.23)
    assert logged.arguments["model_tag"] == "Qwen/Qwen2.5-3B-Instruct"
    old = read_log(OLD)
    assert (old.weights_gib, old.kv_gib, old.total_gib, old.activations_gib) == (14.99, 3.81, 23.58, 2.07)
    failed = read_log("ValueError: No available memory for the cache blocks. Try increasing …")
    assert failed.failure == "No available memory for the cache blocks"
    with pytest.raises(ConfigurationError, match="says nothing about memory"):
        read_log("INFO: Uvicorn running")


def test_a_log_is_compared_and_learned_from() -> None:
    logged = read_log(LOG)
    options = {"gpu": "15.45GiB", "max_model_len": 4096, "max_num_seqs": 8, "gpu_memory_utilization": 0.9}
    plan = plan_fit("Qwen2.5-3B-Instruct", **options)  # type: ignore[arg-type]
    differences = {(each.name, each.unit): each for each in compare(plan, logged)}
    assert differences["weights", "GiB"].inside
    tokens = differences["KV cache", "tokens"]
    assert tokens.inside
    assert tokens.error is not None
    assert abs(tokens.error) > 0.03
    learned = calibrate(plan, logged)
    again = plan_fit("Qwen2.5-3B-Instruct", **options, calibration=learned)  # type: ignore[arg-type]
    assert again.kv_tokens.mid == pytest.approx(196_896, rel=0.002)
    assert again.kv_tokens.high - again.kv_tokens.low < plan.kv_tokens.high - plan.kv_tokens.low
    with pytest.raises(ConfigurationError, match="nothing can be learned"):
        calibrate(plan, read_log("INFO Model loading took 5.79 GiB"))


def test_nvidia_smi_is_read_and_odd_lines_are_passed_over() -> None:
    [card] = read_query("NVIDIA GeForce RTX 5080, 16303, 15000, 12.0\nbroken, [N/A], [N/A], [N/A]\n\n")
    assert (card.name, card.capability) == ("NVIDIA GeForce RTX 5080", 120)
    assert card.total_gib == pytest.approx(15.48, abs=0.02)
    assert card.free_gib == pytest.approx(14.65, abs=0.01)


def test_this_machines_cards_come_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_by_library", lambda: None)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034, 22000, 8.9'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [card.name for card in machine_cards()] == ["NVIDIA L4"]
    assert plan_fit("Qwen3-4B", gpu="auto").card.name == "NVIDIA L4"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine_cards() == []
    with pytest.raises(ConfigurationError, match="no NVIDIA card"):
        plan_fit("Qwen3-4B", gpu="auto")


def test_a_cpu_is_a_card_with_the_machines_memory() -> None:
    card = cpu()
    assert card.cpu
    assert 0 < (card.free_gib or 0) <= card.total_gib
    plan = plan_fit("SmolLM2-135M-Instruct", gpu="cpu", dtype="float32", kv_cache_memory_bytes=64 << 20)
    assert plan.graphs_gib.high == 0
    assert plan.kv_gib.mid == pytest.approx(1 / 16)


@pytest.mark.parametrize(
    ("named", "seen"),
    [(None, "012"), ("2,0", "20"), ("1", "1"), ("", ""), ("-1", ""), ("0,9,1", "0"), ("GPU-8a56", "012")],
)
def test_cards_that_cuda_may_not_use_are_none_of_this_machine(
    named: str | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(hardware, "_by_library", lambda: [Card(name, 15.5, 120) for name in "012"])
    assert "".join(card.name for card in machine_cards()) == seen


@pytest.mark.parametrize(("named", "told"), [("9", True), ("0", False), (None, False)])
def test_what_hides_all_cards_is_told(named: str | None, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(hardware, "_by_library", lambda: [Card("RTX 5080", 15.5, 120)])
    said = [finding.what for finding in check_device(server=False)]
    assert ("CUDA_VISIBLE_DEVICES=9 hides all NVIDIA cards" in said) is told
    if told:
        with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES=9 hides them"):
            plan_fit("Qwen2.5-3B-Instruct", gpu="auto")
