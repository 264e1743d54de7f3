"""What the planner says: verdicts, bands, flags and advice; on models of the catalogue and facts from
published logs.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from agent import list_models, plan_fit
from agent.catalogue.card_names import find_card
from agent.catalogue.cards import CARDS
from agent.catalogue.fit import Fit
from agent.catalogue.models import TASKS, CatalogueModel, catalogue, find_model
from agent.catalogue.quantization import KNOWN
from agent.catalogue.shapes import read_shape
from agent.catalogue.support import support_of
from agent.catalogue.weights import real_parameters
from agent.errors import ConfigurationError, FitError, ModelNotFoundError


def test_planning_imports_neither_vllm_nor_torch() -> None:
    code = (
        "import sys; from agent import plan_fit; plan_fit('Qwen3-8B'); "
        "print(sorted({'torch', 'vllm', 'transformers', 'httpx', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_catalogue_is_large_and_every_model_has_a_plan() -> None:
    models = catalogue()
    assert len(models) >= 99
    assert {model.task for model in models.values()} == set(TASKS)
    for model in models.values():
        assert model.licence
        assert model.context >= 448
        assert support_of(model.architecture).runs, model.id
        plan = plan_fit(model.id, offline=True)
        assert plan.reasons
        assert plan.kv_gib.low <= plan.kv_gib.mid <= plan.kv_gib.high
        json.dumps(plan.to_dict())


def counted() -> list[CatalogueModel]:
    """Models whose every parameter is counted: those with a tower or a head of their own are not."""
    shapes = {model.id: read_shape(model.full_config) for model in catalogue().values()}
    return [
        model
        for model in catalogue().values()
        if model.checked == "yes" and model.parameters and model.task in ("generate", "embedding", "reranker")
        if not shapes[model.id].encoder_only
    ]


def test_most_models_are_counted() -> None:
    assert len(counted()) >= 30


@pytest.mark.parametrize("model", counted(), ids=lambda model: model.id)
def test_counting_finds_the_published_number_of_parameters(model: CatalogueModel) -> None:
    found = real_parameters(read_shape(model.full_config), headless=model.pooling_task)
    assert found == pytest.approx(model.parameters, rel=1e-5)


# Verdicts with the arguments that a person would try, on the default card; worked out by hand from published
# weights.
@pytest.mark.parametrize(
    ("model", "options", "verdict"),
    [
        ("Qwen3-0.6B", {"max_model_len": 40960}, "recommended"),
        ("Llama-3.2-1B-Instruct", {"max_model_len": 131072}, "recommended"),
        ("Qwen2.5-3B-Instruct", {"max_model_len": 32768}, "recommended"),
        ("Llama-3.2-3B-Instruct", {"max_model_len": 32768}, "fits"),
        ("Qwen3-4B", {"max_model_len": 40960}, "may work"),
        ("Qwen3-4B", {"max_model_len": 40960, "kv_cache_dtype": "fp8"}, "fits"),
        ("gemma-3-4b-it", {"max_model_len": 32768, "max_num_seqs": 64}, "recommended"),
        ("Mistral-7B-Instruct-v0.3", {"max_model_len": 4096, "max_num_seqs": 8}, "won't work"),
        ("Qwen2.5-7B-Instruct", {"max_model_len": 4096, "max_num_seqs": 8}, "won't work"),
        ("Qwen2.5-7B-Instruct-AWQ", {"max_model_len": 32768}, "recommended"),
        (
            "Llama-3.1-8B-Instruct",
            {"quantization": "fp8", "max_model_len": 16384, "max_num_seqs": 64},
            "fits",
        ),
        ("Qwen3-8B", {"quantization": "awq", "max_model_len": 32768, "max_num_seqs": 64}, "fits"),
        ("Qwen3-14B", {"quantization": "nvfp4", "max_model_len": 8192, "max_num_seqs": 16}, "fits"),
        ("gpt-oss-20b", {"max_model_len": 8192, "max_num_seqs": 8}, "won't work"),
        ("Qwen3-30B-A3B", {"quantization": "nvfp4", "max_model_len": 4096}, "won't work"),
        ("DeepSeek-V2-Lite", {"quantization": "w4a16", "max_model_len": 32768}, "recommended"),
        ("bge-m3", {}, "recommended"),
        ("Qwen3-8B", {"quantization": "bitsandbytes"}, "may work"),
    ],
)
def test_verdicts_on_the_default_card(model: str, options: dict[str, Any], verdict: str) -> None:
    assert plan_fit(model, **options).verdict == verdict


def test_full_attention_does_not_depend_on_the_context_and_hybrids_do() -> None:
    def tokens(model: str, length: int) -> float:
        return plan_fit(model, max_model_len=length, gpu="H100").kv_tokens.mid

    assert tokens("Qwen3-8B", 4096) == tokens("Qwen3-8B", 32768)
    assert tokens("gemma-3-4b-it", 4096) < tokens("gemma-3-4b-it", 32768)


def test_an_fp8_cache_doubles_tokens_only_where_all_layers_attend() -> None:
    def gain(model: str) -> float:
        plans = [plan_fit(model, gpu="H100", kv_cache_dtype=kind).kv_tokens.mid for kind in ("auto", "fp8")]
        return plans[1] / plans[0]

    assert gain("Qwen3-8B") == pytest.approx(2, rel=1e-3)
    # With states, blocks of twice as many tokens take as much as before: short requests gain little.
    assert 1 <= gain("Qwen3.6-27B") < 1.5


def test_more_cards_share_weights_and_heads_but_not_latent_caches() -> None:
    one, two = (plan_fit("Llama-3.1-8B-Instruct", gpu="H100", tensor_parallel_size=n) for n in (1, 2))
    assert two.weights_gib.mid == pytest.approx(one.weights_gib.mid / 2, rel=0.01)
    assert two.kv_bytes_per_token * 2 == one.kv_bytes_per_token
    one, two = (plan_fit("DeepSeek-V2-Lite", gpu="H100", tensor_parallel_size=n) for n in (1, 2))
    assert two.kv_bytes_per_token == one.kv_bytes_per_token == 31_104
    with pytest.raises(FitError, match="cannot be divided among 3"):
        plan_fit("Llama-3.1-8B-Instruct", tensor_parallel_size=3)


def test_flags_are_those_of_the_plan() -> None:
    plan = plan_fit(
        "Qwen3-8B", quantization="fp8", max_model_len=16384, kv_cache_dtype="fp8", max_num_seqs=32
    )
    assert plan.arguments == [
        *("--max-model-len", "16384", "--gpu-memory-utilization", "0.9", "--max-num-seqs", "32"),
        *("--kv-cache-dtype", "fp8", "--quantization", "fp8"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"),
    ]
    reranker = plan_fit("Qwen3-Reranker-0.6B").arguments
    assert reranker[reranker.index("--convert") + 1] == "classify"
    overrides = json.loads(reranker[reranker.index("--hf-overrides") + 1])
    assert overrides["classifier_from_token"] == ["no", "yes"]
    assert "--max-num-seqs 16" in " ".join(plan_fit("Qwen3.5-9B", gpu="RTX 4090").arguments)
    assert "--dtype float16" in " ".join(plan_fit("Qwen3-0.6B", gpu="T4").arguments)


def test_advice_holds_when_it_is_followed() -> None:
    plan = plan_fit("Qwen3-4B", max_model_len=40960)
    changes = {advice.change: advice for advice in plan.advice}
    shorter = next(advice for change, advice in changes.items() if change.startswith("a context of"))
    length = int(shorter.flags[1])
    assert shorter.works
    assert plan_fit("Qwen3-4B", max_model_len=length).verdict in ("fits", "recommended")
    assert plan_fit("Qwen3-4B", max_model_len=40960, kv_cache_dtype="fp8").verdict == "fits"
    assert str(length) in plan.arguments  # what may work is started with what makes it work


def test_a_model_that_is_far_too_large_needs_other_hardware() -> None:
    plan = plan_fit("Llama-3.3-70B-Instruct")
    assert plan.verdict == "won't work"
    assert "missing" in plan.reasons[0]
    assert not any(advice.same_model for advice in plan.advice)


def test_states_limit_how_many_requests_may_run() -> None:
    options: dict[str, Any] = {"gpu": "RTX PRO 6000", "max_model_len": 8192, "max_num_batched_tokens": 8192}
    assert plan_fit("Qwen3.6-27B", max_num_seqs=256, **options).verdict == "recommended"
    refused = plan_fit("Qwen3.6-27B", max_num_seqs=1024, **options)
    assert refused.verdict != "recommended"
    assert "state" in refused.reasons[0]


def test_memory_that_is_not_free_is_not_promised() -> None:
    busy = plan_fit("Qwen2.5-3B-Instruct", free_gib=13.0, gpu_memory_utilization=0.9)
    assert busy.verdict == "won't work"
    assert "13.00 GiB are free" in busy.reasons[0]
    assert plan_fit("Qwen2.5-3B-Instruct", free_gib=13.0).verdict == "recommended"  # asks for less by itself


def test_an_old_card_is_told_what_it_lacks() -> None:
    plan = plan_fit("Qwen3-4B", gpu="V100 16GB", quantization="fp8")
    assert plan.verdict == "won't work"
    assert "compute capability 7.5" in plan.reasons[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_model_len": 50_000}, "40960 tokens"),
        ({"max_model_len": 0}, "at least 1"),
        ({"gpu_memory_utilization": 1.5}, "at most 1"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"tensor_parallel_size": "2"}, "whole number"),
        ({"max_num_seqs": 1.5}, "whole number"),
        ({"block_size": -16}, "block_size"),
        ({"gpu_memory_utilization": "0.9"}, "must be a number"),
        ({"free_gib": float("nan")}, "free_gib is nan"),
        ({"free_gib": float("inf")}, "free_gib is inf"),
        ({"free_gib": -1}, "at least 0"),
        ({"dtype": "int7"}, "int7"),
        ({"quantization": "magic"}, "magic"),
        ({"kv_cache_dtype": "magic"}, "magic"),
        ({"gpu": "RTX 9999 Super"}, "RTX 9999 Super"),
    ],
)
def test_impossible_arguments_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plan_fit("Qwen3-8B", **options)


def test_removed_and_unknown_architectures_are_named() -> None:
    assert "up to 0.28.0" in support_of("MPTForCausalLM").told
    assert "plugin" in support_of("BartForConditionalGeneration").told
    assert "Qwen3ForCausalLM" in support_of("Qwen3ForCausalLMs").told
    assert support_of("LlamaForSequenceClassification").runs


def test_cards_are_found_by_what_people_call_them() -> None:
    assert find_card("NVIDIA GeForce RTX 4090").name == "RTX 4090"
    assert find_card("rtx5080").total_gib == 15.48
    assert find_card("24GB").total_gib == pytest.approx(23.2, abs=0.1)
    assert find_card("22.5 GiB").total_gib == 22.5
    assert find_card("cpu").cpu
    assert len({card.name for card in CARDS}) == len(CARDS)


def test_models_are_filtered() -> None:
    assert {m.task for m in list_models(task="reranker")} == {"reranker"}
    assert {m.task for m in list_models(task="pooling")} == set(TASKS[3:])
    small = list_models(family="qwen", max_parameters=1e9)
    assert small
    assert all((m.parameters or 0) <= 1e9 for m in small)
    with pytest.raises(ConfigurationError, match="nonsense"):
        list_models(task="nonsense")
    with pytest.raises(ModelNotFoundError, match="did you mean"):
        find_model("Qwen3-8")


def test_records_are_frozen_and_plain() -> None:
    plan = plan_fit("Qwen3-8B")
    assert isinstance(plan, Fit)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.verdict = "fits"  # type: ignore[misc]
    assert set(plan.to_dict()["weights_gib"]) == {"low", "mid", "high"}
    assert all(method.bytes_per_weight <= 2 for method in KNOWN.values())
