"""Where a model's description comes from: a directory, the catalogue, the hub; and what is said when it is
not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_double import Hub, safetensors, serving_hub

from agent import plan_fit
from agent.catalogue.checkpoint import index_files, read_header
from agent.catalogue.fetch import find_source
from agent.errors import FitError, ModelNotFoundError

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
TENSORS = {
    "model.embed_tokens.weight": ("BF16", [128, 64]),
    "lm_head.weight": ("BF16", [128, 64]),
    "model.norm.weight": ("BF16", [64]),
    **{
        f"model.layers.{i}.{name}.weight": ("BF16", shape)
        for i in range(2)
        for name, shape in {
            "self_attn.q_proj": [64, 64],
            "self_attn.k_proj": [32, 64],
            "self_attn.v_proj": [32, 64],
            "self_attn.o_proj": [64, 64],
            "mlp.gate_proj": [128, 64],
            "mlp.up_proj": [128, 64],
            "mlp.down_proj": [64, 128],
            "input_layernorm": [64],
            "post_attention_layernorm": [64],
        }.items()
    },
}
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub() as serving:
        yield serving


def directory(path: Path, config: Any = CONFIG, **files: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name, data in files.items():
        (path / f"{name}.safetensors").write_bytes(data)
    return path


def test_a_directory_is_counted_from_its_tensors_or_else_from_its_config(tmp_path: Path) -> None:
    bare = plan_fit(directory(tmp_path / "bare"))
    full = plan_fit(directory(tmp_path / "full", model=safetensors(TENSORS)))
    assert bare.weights_source != full.weights_source
    assert bare.weights_gib.mid == full.weights_gib.mid
    parameters = 2 * 128 * 64 + 64 + 2 * (64 * 128 + 64 * 64 + 3 * 128 * 64 + 2 * 64)
    scales, rotary = 2 * 4 * 4, 256 * 16 * 2
    assert round(full.weights_gib.mid * GIB) == 2 * parameters + scales + rotary


def test_a_hub_id_costs_a_few_kilobytes(hub: Hub) -> None:
    hub.add("someone/model", "config.json", CONFIG)
    hub.add("someone/model", "model.safetensors", safetensors(TENSORS, data=1_000_000))
    plan = plan_fit("someone/model", endpoint=hub.address)
    assert plan.verdict == "recommended"
    assert plan.weights_source == "tensors of the checkpoint"
    assert sum(length for _, _, length in hub.asked) < 10_000


@pytest.mark.parametrize("ranges", [True, False])
def test_shards_are_found_by_the_index(hub: Hub, ranges: bool) -> None:
    hub.ranges = ranges
    names = list(TENSORS)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    hub.add("someone/model", "config.json", CONFIG)
    index = {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
    hub.add("someone/model", "model.safetensors.index.json", index)
    for file, inside in parts.items():
        hub.add("someone/model", file, safetensors({name: TENSORS[name] for name in inside}))
    source = find_source("someone/model", endpoint=hub.address)
    assert source.tensors is not None
    assert {tensor.name for tensor in source.tensors} == set(TENSORS)


def test_a_token_is_sent_where_there_is_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add("someone/model", "config.json", CONFIG)
    find_source("someone/model", endpoint=hub.address)
    assert {headers.get("Authorization") for headers in hub.headers} == {"Bearer hf_secret"}


def test_what_the_hub_does_not_have_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    with pytest.raises(ModelNotFoundError, match="someone/nothing"):
        plan_fit("someone/nothing")
    hub.status = 503
    with pytest.raises(ModelNotFoundError, match="answers 503"):
        plan_fit("someone/nothing")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelNotFoundError, match="cannot be asked"):
        plan_fit("someone/nothing")
    with pytest.raises(ModelNotFoundError, match="offline"):
        plan_fit("someone/nothing", offline=True)


def test_a_shard_that_the_index_names_must_be_there(hub: Hub, tmp_path: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "gone.safetensors"}}
    hub.add("someone/model", "config.json", CONFIG)
    hub.add("someone/model", "model.safetensors.index.json", index)
    with pytest.raises(FitError, match=r"gone\.safetensors"):
        plan_fit("someone/model", endpoint=hub.address)
    path = directory(tmp_path / "model", other=safetensors(TENSORS))
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FitError, match=r"lacks gone\.safetensors"):
        plan_fit(path)


def test_the_hubs_cache_on_this_machine_comes_before_the_network(tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--someone--model" / "snapshots" / "abc"
    directory(snapshot, model=safetensors(TENSORS))
    source = find_source("someone/model", offline=True)
    assert (source.kind, source.name) == ("directory", "someone/model")


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_HOME", "~/huggingface"), ("HF_HUB_CACHE", "$HOME/huggingface/hub"), ("XDG_CACHE_HOME", "~")],
)
def test_the_hubs_cache_is_where_the_hub_has_it(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    directory(tmp_path / "huggingface" / "hub" / "models--someone--model" / "snapshots" / "abc")
    assert find_source("someone/model", offline=True).kind == "directory"


def test_a_cache_that_may_not_be_read_has_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: Path, pattern: str) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", forbidden)
    with pytest.raises(ModelNotFoundError, match="offline"):
        find_source("someone/model", offline=True)


def test_a_catalogue_model_needs_no_network_and_no_full_name() -> None:
    assert find_source("qwen3-8b", offline=True).name == "Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": None}, "architectures"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"vocab_size": None}, "vocab_size"),
        ({"num_attention_heads": 0}, "`num_attention_heads` .* is 0, and should be 1 or more"),
        ({"max_position_embeddings": 0}, "`max_position_embeddings` .* is 0, and should be 1 or more"),
        ({"max_position_embeddings": -1}, "`max_position_embeddings` .* is -1"),
        ({"max_position_embeddings": float("nan")}, "`max_position_embeddings` .* whole number"),
        ({"hidden_size": float("inf")}, "`hidden_size` .* whole number"),
        ({"num_hidden_layers": 10**30}, "no model has so many"),
        ({"num_experts": "x"}, "`num_experts` .* whole number"),
        ({"num_experts": -2}, "`num_experts` .* should be 0 or more"),
        ({"sliding_window": -1}, "sliding_window"),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 2}, "hold no token"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "x"}}, "`factor` of `rope_scaling` is 'x'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 1e-9}}, "hold no token"),
        ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": 1}}, "num_bits"),
        ({"layer_types": ["full_attention", "something_new"]}, "something_new"),
        ({"layer_types": ["full_attention"]}, "1 entries for 2 layers"),
        ({"hybrid_override_pattern": "M-M*"}, "hybrid_override_pattern"),
        ({"model_type": "something_new"}, "something_new"),
        ({"quantization_config": {"quant_method": "something_new"}}, "something_new"),
        ({"quantization_config": {"quant_method": "gptq"}}, "bits"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
    ],
)
def test_what_is_missing_or_odd_in_a_config_is_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(FitError, match=said):
        plan_fit(directory(tmp_path / "model", {**CONFIG, **change}))


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"config\.json is broken JSON"):
        plan_fit(directory(tmp_path / "a", '{"hidden_size": '))
    with pytest.raises(FitError, match=r"config\.json is broken JSON"):
        plan_fit(directory(tmp_path / "f", "[" * 100_000))
    with pytest.raises(FitError, match=r"header of a safetensors file is broken"):
        read_header(b"[" * 100_000)
    with pytest.raises(FitError, match=r"index\.json is broken"):
        index_files(b"[" * 100_000)
    with pytest.raises(FitError, match="should be a JSON object"):
        plan_fit(directory(tmp_path / "b", "[1]"))
    with pytest.raises(FitError, match=r"model\.safetensors.*no safetensors file"):
        plan_fit(directory(tmp_path / "c", model=b"garbage"))
    (tmp_path / "d").mkdir()
    with pytest.raises(FitError, match=r"has no config\.json"):
        plan_fit(tmp_path / "d")
    with pytest.raises(ModelNotFoundError, match="no model directory"):
        plan_fit(tmp_path / "e")


def test_what_vllm_does_not_load_is_not_counted(tmp_path: Path) -> None:
    plain = plan_fit(directory(tmp_path / "a", model=safetensors(TENSORS))).weights_gib.mid
    tied = {**CONFIG, "tie_word_embeddings": True}
    more = {"mtp.layers.0.q.weight": ("BF16", [999, 999]), "model.rotary_emb.inv_freq": ("F32", [16])}
    extra = plan_fit(directory(tmp_path / "b", model=safetensors({**TENSORS, **more}))).weights_gib.mid
    assert extra == plain
    once = plan_fit(directory(tmp_path / "c", tied, model=safetensors(TENSORS))).weights_gib.mid
    assert round((plain - once) * GIB) == 128 * 64 * 2  # the head that is stored a second time
    wide = {name: ("F32", shape) for name, (_, shape) in TENSORS.items()}
    assert plan_fit(directory(tmp_path / "d", model=safetensors(wide))).weights_gib.mid == plain


def test_the_limit_of_a_sentence_transformer_is_obeyed(tmp_path: Path) -> None:
    path = directory(tmp_path / "model")
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 100}')
    assert plan_fit(path).max_model_len == 100


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "m" * 5000], ids=["nobody", "long"])
def test_what_no_file_can_be_called_is_no_model(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no model can be called"):
        plan_fit(name)
