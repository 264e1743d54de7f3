"""The planner's arithmetic of the KV cache beside vLLM's own functions, on random models."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.catalogue.caches import Cache, CacheKind, Demand, LayerCache, divide
from agent.catalogue.models import catalogue
from agent.catalogue.support import registry
from agent.errors import FitError

MODELS = 2000


@pytest.fixture(scope="module")
def vllm() -> SimpleNamespace:
    import torch
    from vllm.v1 import kv_cache_interface as specs
    from vllm.v1.core import kv_cache_utils as functions
    from vllm.v1.kv_cache_layout import KVCacheLayout

    logging.getLogger("vllm.v1.core.kv_cache_utils").setLevel(logging.ERROR)  # a line for every model
    dtypes = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}
    return SimpleNamespace(specs=specs, functions=functions, layout=KVCacheLayout.LBNHC, dtypes=dtypes)


def random_layers(rng: random.Random) -> tuple[str, list[LayerCache]]:
    """One random model: what it is called, and its layers."""
    width = rng.choice([1, 2, 4])
    block = rng.choice([16, 16, 32, 64, 128])
    heads, size = rng.choice([1, 2, 3, 4, 8, 16, 32]), rng.choice([64, 80, 96, 128, 192, 256])
    count = rng.randint(1, 80)
    full = LayerCache(CacheKind.FULL, block, heads, 2 * size * width)
    window = rng.choice([128, 512, 1024, 2047, 4096])
    sliding = replace(full, kind=CacheKind.SLIDING, window=window)
    kind = rng.choice(
        ["full", "heads", "sliding", "hybrid", "gemma", "chunked", "mamba", "mla", "mla+sliding"]
    )
    if kind == "full":
        return kind, [full] * count
    if kind == "heads":
        other = replace(full, heads=rng.choice([1, 2, 5, 8]))
        return kind, [full, *rng.choices([full, other], k=count)]
    if kind == "sliding":
        return kind, [sliding] * count
    if kind == "hybrid":
        return kind, [full, *rng.choices([full, sliding], k=count)]
    if kind == "gemma":  # two kinds of heads as well as two kinds of attention
        wide = replace(full, heads=rng.choice([1, 2, 4]), head_bytes=2 * 512 * width)
        return kind, [wide, *rng.choices([wide, sliding], k=count)]
    if kind == "chunked":
        return kind, [full, *rng.choices([full, replace(full, kind=CacheKind.CHUNKED, window=8192)], k=count)]
    latent = LayerCache(CacheKind.MLA, block, 1, 576 * width)
    if kind == "mla":
        return kind, [latent] * count
    if kind == "mla+sliding":
        return kind, [latent, *rng.choices([latent, sliding], k=count)]
    state = rng.randint(1, 2_000_000) * 2
    block = 16 * -(-state // (16 * full.page // full.block_size))
    full = replace(full, block_size=block)
    return kind, [
        full,
        *rng.choices([full, LayerCache(CacheKind.STATE, block, 1, state, padded=full.page)], k=count),
    ]


def as_vllm(vllm: Any, layer: LayerCache) -> Any:
    """The same layer as vLLM writes it down."""
    if layer.kind is CacheKind.STATE:
        return vllm.specs.MambaSpec(
            block_size=layer.block_size,
            shapes=((layer.head_bytes // 2,),),
            dtypes=(vllm.dtypes[2],),
            page_size_padded=layer.padded,
            mamba_cache_mode="align",
        )
    common = {"block_size": layer.block_size, "num_kv_heads": layer.heads, "dtype": vllm.dtypes[1]}
    if layer.kind is CacheKind.MLA:
        return vllm.specs.MLAAttentionSpec(**common, head_size=layer.head_bytes)
    common["head_size"] = layer.head_bytes // 2
    if layer.kind is CacheKind.SLIDING:
        return vllm.specs.SlidingWindowSpec(**common, sliding_window=layer.window)
    if layer.kind is CacheKind.CHUNKED:
        return vllm.specs.ChunkedLocalAttentionSpec(**common, attention_chunk_size=layer.window)
    return vllm.specs.FullAttentionSpec(**common)


def vllm_config(vllm: Any, demand: Demand, *, hybrid: bool) -> Any:
    """As much of a configuration as those functions look at."""
    return SimpleNamespace(
        model_config=SimpleNamespace(
            max_model_len=demand.max_model_len, original_max_model_len=demand.max_model_len
        ),
        cache_config=SimpleNamespace(
            mamba_cache_mode="align" if demand.states == 2 else "none",
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            get_resolved_kv_cache_layout=lambda: vllm.layout,
        ),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1, tensor_parallel_size=1),
        scheduler_config=SimpleNamespace(
            disable_hybrid_kv_cache_manager=not hybrid,
            max_num_encoder_input_tokens=demand.encoder_tokens,
        ),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=demand.in_flight,
    )


def test_blocks_tokens_and_verdicts_are_those_of_vllm(vllm: SimpleNamespace) -> None:
    rng = random.Random(6)
    seen: dict[str, list[bool]] = {}
    refusals: list[tuple[str, bool]] = []
    for _ in range(MODELS):
        name, layers = random_layers(rng)
        hybrid = rng.random() < 0.9
        length = rng.choice([512, 4096, 32768, 40960, 131072, rng.randint(1, 200_000)])
        demand = Demand(length, rng.choice([1, 2]) * rng.choice([512, 2048, 8192]), states=rng.choice([1, 2]))
        config = vllm_config(vllm, demand, hybrid=hybrid)
        specs = {f"layer.{i}": as_vllm(vllm, layer) for i, layer in enumerate(layers)}
        available = int(rng.uniform(0, 24) * (1 << 30) ** rng.choice([0.9, 1]))
        try:
            ours: Cache | None = divide(layers, demand, hybrid=hybrid)
        except FitError:
            ours = None
        try:
            [theirs] = vllm.functions.get_kv_cache_configs(config, [specs], [available])
            tokens, concurrency = vllm.functions.get_kv_cache_capacity(config, theirs)
        except (NotImplementedError, ValueError) as refused:
            told = str(refused)
            expected = ("unif", "promote", "padded") if ours is None else ("available",)
            right = any(word in told for word in expected) and not (ours and ours.starts(available))
            refusals.append((f"{name}: {told} {layers}", right))
            seen.setdefault(name, []).append(False)
            continue
        assert ours is not None
        assert ours.starts(available), (name, layers, demand)
        assert ours.blocks(available) == theirs.num_blocks, (name, layers)
        assert (ours.tokens(available), ours.concurrency(available)) == (tokens, concurrency), (name, layers)
        seen.setdefault(name, []).append(True)
    assert [told for told, right in refusals if not right] == []
    assert len(seen) == 9, seen.keys()
    assert all(True in outcomes for outcomes in seen.values()), seen
    assert sum(False in outcomes for outcomes in seen.values()) >= 8


def test_the_catalogue_names_what_this_vllm_has(vllm: SimpleNamespace) -> None:
    from vllm.model_executor.models import registry as theirs
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    ours = registry()
    names = {name for group in ours["supported"].values() for name in group}
    kinds = ("TEXT_GENERATION", "EMBEDDING", "LATE_INTERACTION", "REWARD", "TOKEN_CLASSIFICATION")
    kinds += ("SEQUENCE_CLASSIFICATION", "MULTIMODAL", "TRANSFORMERS_SUPPORTED")
    assert names == {name for kind in kinds for name in getattr(theirs, f"_{kind}_MODELS")}
    assert ours["removed"] == theirs._PREVIOUSLY_SUPPORTED_MODELS
    models = catalogue().values()
    parsers = {model.tool_parser for model in models if model.tool_parser}
    assert parsers <= set(ToolParserManager.list_registered())
    assert {m.reasoning_parser for m in models if m.reasoning_parser} <= set(
        ReasoningParserManager.list_registered()
    )
