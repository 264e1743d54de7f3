"""The planner beside vLLM itself: small models with random weights, really started on this machine's CPU.

    python -m benchmarks.fit_engine [NAME …]

For every configuration, the bytes of the weights that vLLM holds and the blocks and tokens of its KV cache,
as the engine has them, beside what the planner foretells from ``config.json`` alone. No network, no GPU; a
minute or two.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agent.catalogue.case import resolve
from agent.catalogue.estimate import estimate
from agent.catalogue.fetch import find_source
from agent.catalogue.hardware import cpu

KV_BYTES = 64 << 20
MAX_MODEL_LEN = 512
BATCHED = 256

_SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
}


@dataclass(frozen=True)
class Tiny:
    """One small model."""

    name: str
    architecture: str
    config: dict[str, Any]
    """Arguments of transformers' configuration class."""
    options: dict[str, Any]
    """Engine arguments beside those that all of them share."""


def _tiny(
    name: str, architecture: str, model_type: str, options: dict[str, Any] | None = None, **config: Any
) -> Tiny:
    return Tiny(name, architecture, {"model_type": model_type, **_SMALL, **config}, options or {})


TINY = (
    _tiny("full", "LlamaForCausalLM", "llama", tie_word_embeddings=False),
    _tiny("gqa", "Qwen3ForCausalLM", "qwen3", num_key_value_heads=2, head_dim=64, tie_word_embeddings=True),
    _tiny("bias", "Qwen2ForCausalLM", "qwen2", num_key_value_heads=2, tie_word_embeddings=False),
    _tiny("bfloat16", "LlamaForCausalLM", "llama", {"dtype": "bfloat16"}, num_key_value_heads=1),
    _tiny("sliding", "MistralForCausalLM", "mistral", sliding_window=128, num_key_value_heads=2),
    _tiny(
        "sliding-hybrid",
        "Gemma3ForCausalLM",
        "gemma3_text",
        num_hidden_layers=6,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=128,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
    ),
    _tiny(
        "moe",
        "MixtralForCausalLM",
        "mixtral",
        num_local_experts=4,
        num_experts_per_tok=2,
        num_key_value_heads=2,
    ),
    _tiny(
        "moe-qwen3",
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        head_dim=32,
        num_key_value_heads=2,
    ),
    _tiny(
        "mla",
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        q_lora_rank=None,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
    ),
    _tiny(
        "mamba-hybrid",
        "GraniteMoeHybridForCausalLM",
        "granitemoehybrid",
        layer_types=["mamba", "attention", "mamba", "mamba"],
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=256,
        mamba_n_heads=8,
        mamba_d_head=32,
        mamba_d_state=64,
        mamba_n_groups=1,
        mamba_expand=2,
        mamba_d_conv=4,
        tie_word_embeddings=True,
    ),
    _tiny(
        "encoder-only",
        "BertModel",
        "bert",
        {"runner": "pooling", "skip_tokenizer_init": False},
        max_position_embeddings=512,
        type_vocab_size=2,
    ),
    _tiny("old", "OPTForCausalLM", "opt", ffn_dim=256, word_embed_proj_dim=128, do_layer_norm_before=True),
)


def write(tiny: Tiny, directory: Path) -> Path:
    """Save the model with random weights; return its directory."""
    import torch
    import transformers

    torch.manual_seed(0)
    target = directory / tiny.name
    arguments = {key: value for key, value in tiny.config.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(tiny.config["model_type"], **arguments)
    config.architectures = [tiny.architecture]
    model = getattr(transformers, tiny.architecture)(config)
    model.save_pretrained(target)
    _tokenizer(tiny.config["vocab_size"]).save_pretrained(target)
    return target


def _tokenizer(size: int) -> Any:
    """A tokenizer of ``size`` words that mean nothing; vLLM wants one for pooling models."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "[PAD]": 1} | {f"w{number}": number for number in range(2, size)}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")


def measured(tiny: Tiny, path: Path) -> dict[str, Any]:
    """Start vLLM with the model and return what it holds."""
    from vllm import LLM
    from vllm.model_executor.model_loader import base_loader

    options: dict[str, Any] = {
        "dtype": "float32",
        "max_model_len": MAX_MODEL_LEN,
        "max_num_batched_tokens": BATCHED,
        "max_num_seqs": 4,
        "kv_cache_memory_bytes": KV_BYTES,
        "enforce_eager": True,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
        **tiny.options,
    }
    if options.get("runner") == "pooling":
        del options["max_num_batched_tokens"]
    held: list[int] = []
    process = base_loader.process_weights_after_loading

    def counted(model: Any, *args: Any) -> None:
        # The CPU's kernels repack matrices into buffers of their own afterwards, which torch does not list.
        held.append(_held_bytes(model))
        process(model, *args)

    with patch.object(base_loader, "process_weights_after_loading", counted):
        llm = LLM(model=str(path), **options)
    core = llm.llm_engine.engine_core.engine_core
    cache = core.vllm_config.cache_config
    found = {
        "weights": held[0],
        "blocks": cache.num_gpu_blocks,
        "tokens": cache.kv_cache_size_tokens,
        "block_size": cache.block_size,
    }
    core.shutdown()
    return found


def _held_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers, each storage once."""
    storages = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def foretold(tiny: Tiny, path: Path) -> dict[str, Any]:
    """What the planner says about the same configuration: from ``config.json`` alone, and from the
    checkpoint.
    """
    options: dict[str, Any] = {
        "dtype": tiny.options.get("dtype", "float32"),
        "max_model_len": MAX_MODEL_LEN,
        "max_num_batched_tokens": None if tiny.options.get("runner") == "pooling" else BATCHED,
    }
    source = find_source(path)
    counted = estimate(resolve(replace(source, tensors=None), cpu(), **options))
    stored = estimate(resolve(source, cpu(), **options))
    cache = counted.cache
    return {
        "weights": counted.weights.size,
        "weights_stored": stored.weights.size,
        "blocks": cache.blocks(KV_BYTES),
        "tokens": cache.tokens(KV_BYTES),
        "block_size": max((layer.block_size for group in cache.groups for layer in group), default=None),
    }


def compare(names: list[str]) -> Iterator[dict[str, Any]]:
    """Start the configurations one after another in this process."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    with tempfile.TemporaryDirectory() as directory:
        for tiny in TINY:
            if names and tiny.name not in names:
                continue
            path = write(tiny, Path(directory))
            yield {"name": tiny.name, "vllm": measured(tiny, path), "planner": foretold(tiny, path)}


if __name__ == "__main__":
    for outcome in compare(sys.argv[1:]):
        print(json.dumps(outcome), flush=True)
