"""A model that cannot start is refused before anything is loaded, with what would fit."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from test_fit_sources import CONFIG, directory

from agent.catalogue import hardware, preflight
from agent.catalogue.card_names import find_card
from agent.catalogue.cards import Card
from agent.catalogue.preflight import check_fit, memory_advice, plan_for
from agent.engines import EngineConfig, LocalEngine
from agent.engines.failures import start_error
from agent.errors import DoesNotFitError, EngineStartError

CARD = find_card("RTX 5080")
SMALL_CPU = Card("CPU", 10.0, 0, 8.0, seen=True, cpu=True)
LARGE: dict[str, Any] = {
    **CONFIG,
    **{"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
    **{"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 4096},
}


def test_what_fits_passes_and_what_does_not_is_refused_with_advice() -> None:
    check_fit({"model": "Qwen/Qwen3-4B", "max_model_len": 8192}, card=CARD)
    with pytest.raises(DoesNotFitError) as refused:
        check_fit({"model": "Qwen/Qwen3-8B", "max_model_len": 8192}, card=CARD)
    told = str(refused.value)
    assert "Qwen/Qwen3-8B does not fit here (RTX 5080, 15.5 GiB)" in told
    assert "FP8 weights, made while it loads (quantization=fp8)" in told
    assert "force=True" in told


def test_the_models_whole_context_is_what_vllm_takes() -> None:
    plan = plan_for({"model": "Qwen/Qwen3-4B"}, card=CARD)
    assert plan is not None
    assert plan.max_model_len == 40_960


def test_a_cpu_is_asked_for_the_cache_that_the_engine_takes() -> None:
    check_fit({"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "dtype": "float32"}, card=SMALL_CPU)
    with pytest.raises(DoesNotFitError, match="weights"):
        check_fit({"model": "Qwen/Qwen3-4B", "max_model_len": 4096, "dtype": "float32"}, card=SMALL_CPU)
    with pytest.raises(DoesNotFitError, match="a context of"):
        check_fit({"model": "Qwen/Qwen3-0.6B", "dtype": "float32"}, card=SMALL_CPU)


def test_what_cannot_be_foretold_is_not_refused(tmp_path: Path) -> None:
    odd = directory(tmp_path / "odd", {**LARGE, "model_type": "something_new"})
    check_fit({"model": str(odd)}, card=CARD)
    check_fit({"model": "nothing/nothing-at-all"}, card=CARD)
    check_fit({"model": "Qwen/Qwen3-8B", "cpu_offload_gb": 8}, card=CARD)
    check_fit({"model": "Qwen/Qwen3-8B", "max_model_len": 10**6}, card=CARD)  # vLLM says that better


@pytest.mark.parametrize(
    "wrong", [{"gpu_memory_utilization": ".9"}, {"quantization": True}, {"block_size": "many"}]
)
def test_an_argument_of_a_wrong_type_is_left_to_vllm(wrong: dict[str, Any]) -> None:
    check_fit({"model": "Qwen/Qwen3-0.6B", **wrong}, card=CARD)


def test_running_out_of_memory_becomes_advice() -> None:
    arguments = {"model": "Qwen/Qwen3-4B", "max_model_len": 40_960}
    told = memory_advice("CUDA out of memory. Tried to allocate 2.00 GiB", arguments, card=CARD)
    assert told is not None
    assert "max_model_len" in told
    small = memory_advice(
        "CUDA out of memory", {"model": "Qwen/Qwen3-0.6B", "max_model_len": 4096}, card=CARD
    )
    assert small is not None
    assert "see what else holds memory" in small
    assert memory_advice("unknown argument", arguments, card=CARD) is None
    raised = start_error(arguments, ValueError("No available memory for the cache blocks."))
    assert isinstance(raised, DoesNotFitError)
    assert isinstance(start_error(arguments, ValueError("something else")), EngineStartError)


async def test_the_engine_refuses_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_this_machine", lambda share: SMALL_CPU)
    model = directory(tmp_path / "large", LARGE)
    stages: list[str] = []
    engine = LocalEngine(EngineConfig.create(model), on_stage=stages.append)
    begun = time.process_time()  # of the processor: a busy machine gives it less of that
    with pytest.raises(DoesNotFitError, match="large does not fit here"):
        await engine.start()
    assert time.process_time() - begun < 5
    assert stages == ["importing"]
    engine.close()


def test_force_is_a_part_of_the_configuration() -> None:
    plain, forced = (EngineConfig.create("someone/model", force=force) for force in (False, True))
    assert plain != forced
    assert "force" not in forced.engine_arguments()


def test_a_card_that_vllm_does_not_use_refuses_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    free, busy = (Card("RTX 5080", 15.5, 120, gib, seen=True) for gib in (15.0, 0.5))
    monkeypatch.setattr(hardware, "_by_library", lambda: [busy, free])
    monkeypatch.setattr(preflight.metadata, "version", metadata_says_no)
    arguments = {"model": "Qwen/Qwen3-4B", "max_model_len": 8192}
    with pytest.raises(DoesNotFitError):
        check_fit(arguments)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    check_fit(arguments)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    check_fit(arguments)  # the first one is used
    with pytest.raises(DoesNotFitError):
        check_fit({**arguments, "tensor_parallel_size": 2})


def metadata_says_no(name: str) -> str:
    raise PackageNotFoundError(name)
