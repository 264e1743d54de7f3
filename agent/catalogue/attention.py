"""The cache of every layer of a model, on one card.

Pages are those of ``vllm/v1/kv_cache_interface.py``, states those of ``MambaStateShapeCalculator``, and the
common block of hybrid models that of ``_align_hybrid_block_size`` in ``vllm/platforms/interface.py`` (vLLM
0.32.0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.catalogue.caches import CacheKind, LayerCache
from agent.catalogue.shapes import ATTENTION, CHUNKED, LINEAR, MAMBA, SLIDING, Shape
from agent.errors import ConfigurationError, FitError

WIDTHS = {"float32": 4, "float16": 2, "half": 2, "bfloat16": 2, "float": 4}

_KINDS = {ATTENTION: CacheKind.FULL, SLIDING: CacheKind.SLIDING, CHUNKED: CacheKind.CHUNKED}
_CACHE_DTYPES = (
    *("auto", "bfloat16", "float16", "float32", "half", "fp8", "fp8_e4m3", "fp8_e5m2", "nvfp4", "fp8_ds_mla"),
    *("int8_per_token_head", "fp8_per_token_head", "int4_per_token_head", "nvfp4_ds_mla"),
)
_LATENT_BYTES = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}  # of DeepSeek's own packed forms


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """What of the configuration decides the size of a layer's cache."""

    dtype: str
    """The type that the model computes in."""
    cache_dtype: str = "auto"
    """``--kv-cache-dtype``."""
    tensor_parallel_size: int = 1
    block_size: int = 16
    """Tokens in a block: 16 on CUDA, 128 on a CPU (16 there for latent caches)."""
    kernel_block: int = 16
    """The blocks that the attention kernel works in: 16 on CUDA, 32 on a CPU."""
    state_dtype: str | None = None
    """``--mamba-ssm-cache-dtype``; None for the model's own."""


def head_bytes(head_dim: int, options: CacheOptions) -> int:
    """Bytes of one token in one head, key and value together.

    Raises:
        ConfigurationError: There is no such cache type.
    """
    name = options.cache_dtype
    if name not in _CACHE_DTYPES:
        msg = f"kv_cache_dtype {name!r} is not one of {', '.join(_CACHE_DTYPES)}"
        raise ConfigurationError(msg)
    if name in ("int8_per_token_head", "fp8_per_token_head"):
        return 2 * (head_dim + 4)
    if name == "int4_per_token_head":
        return 2 * (head_dim // 2 + 4)
    if name == "nvfp4":
        return 2 * (head_dim // 2 + head_dim // 16)
    if name.startswith("fp8"):
        return 2 * head_dim
    return 2 * head_dim * WIDTHS[options.dtype if name == "auto" else name]


def layer_caches(shape: Shape, options: CacheOptions) -> list[LayerCache]:
    """The caches of all layers that have one, in their order.

    Raises:
        FitError: A size is missing, or cannot be divided among the cards.
        ConfigurationError: There is no such cache type.
    """
    if shape.encoder_only:
        return []
    if shape.model_type == "whisper":
        own = _attention_cache(CacheKind.FULL, shape.kv_heads, shape.head_dim, options, 0)
        return [own, replace(own, kind=CacheKind.CROSS)] * shape.layers
    if not shape.stateful:
        return _attention_caches(shape, options)
    return _hybrid_caches(shape, options)


def _attention_caches(shape: Shape, options: CacheOptions) -> list[LayerCache]:
    if shape.mla:
        return [_latent_cache(shape, options)] * shape.layers
    wide = shape.size("global_head_dim", 0)
    wide_heads = shape.size("num_global_key_value_heads", 0) or shape.kv_heads
    # Gemma 3n and 4: the last layers read the cache of earlier ones and have none of their own.
    kinds = shape.kinds[: shape.layers - shape.size("num_kv_shared_layers", 0)]
    caches = []
    for kind in kinds:
        if kind == ATTENTION and wide:
            caches.append(_attention_cache(CacheKind.FULL, wide_heads, wide, options, 0))
        else:
            window = 0 if kind == ATTENTION else shape.window
            caches.append(_attention_cache(_KINDS[kind], shape.kv_heads, shape.head_dim, options, window))
    return caches


def _attention_cache(
    kind: CacheKind, heads: int, head_dim: int, options: CacheOptions, window: int
) -> LayerCache:
    here = max(1, heads // options.tensor_parallel_size)
    return LayerCache(kind, options.block_size, here, head_bytes(head_dim, options), window)


def _latent_cache(shape: Shape, options: CacheOptions) -> LayerCache:
    """Not divided by tensor parallelism: every card keeps the whole latent vector."""
    size = shape.size("kv_lora_rank") + shape.size("qk_rope_head_dim")
    packed = _LATENT_BYTES.get(options.cache_dtype)
    return LayerCache(CacheKind.MLA, options.block_size, 1, packed or head_bytes(size, options) // 2)


def _hybrid_caches(shape: Shape, options: CacheOptions) -> list[LayerCache]:
    """Blocks so long that one holds a whole state, and states padded to them."""
    state = state_bytes(shape, options)
    if ATTENTION not in shape.kinds:
        return [LayerCache(CacheKind.STATE, options.block_size, 1, state)] * shape.layers
    one = _attention_cache(CacheKind.FULL, shape.kv_heads, shape.head_dim, options, 0)
    token = one.heads * one.head_bytes
    align = max(options.kernel_block, options.block_size)
    block = max(options.block_size, align * -(-state // (align * token)))
    full = replace(one, block_size=block)
    padded = None if full.page == state else full.page
    held = LayerCache(CacheKind.STATE, block, 1, state, padded=padded)
    return [full if kind == ATTENTION else held for kind in shape.kinds]


def state_bytes(shape: Shape, options: CacheOptions) -> int:
    """Bytes of the state of one layer for one request: a convolution's window and the recurrent state.

    Raises:
        FitError: The layer's sizes are missing or cannot be divided.
    """
    tp = options.tensor_parallel_size
    width = WIDTHS[options.dtype]
    own = options.state_dtype or shape.text.get("mamba_ssm_dtype")
    if LINEAR in shape.kinds:
        if not own and shape.model_type.startswith("qwen3_5"):
            own = "float32"  # what the published configurations of the family say
        keys, values = shape.size("linear_num_key_heads"), shape.size("linear_num_value_heads")
        key_dim, value_dim = shape.size("linear_key_head_dim"), shape.size("linear_value_head_dim")
        channels = _divided(2 * keys * key_dim + values * value_dim, tp)
        recurrent = _divided(values, tp) * value_dim * key_dim
        kernel = shape.size("linear_conv_kernel_dim", 4)
    elif MAMBA in shape.kinds:
        heads, head_dim = shape.size("mamba_n_heads"), shape.size("mamba_d_head")
        states, groups = shape.size("mamba_d_state"), shape.size("mamba_n_groups", 1)
        groups += 0 if groups % tp == 0 else tp - groups  # groups are repeated for heads on other cards
        channels = _divided(shape.size("mamba_expand", 2) * shape.hidden + 2 * groups * states, tp)
        recurrent = _divided(heads, tp) * head_dim * states
        kernel = shape.size("mamba_d_conv", 4)
    else:
        raise FitError(f"the state of {shape.architecture} is not known here")
    return (kernel - 1) * channels * width + recurrent * WIDTHS.get(own or "", width)


def _divided(value: int, parts: int) -> int:
    if value % parts:
        raise FitError(f"{value} cannot be divided among {parts} cards")
    return value // parts
