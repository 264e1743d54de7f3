"""One question to the planner with everything that was left open resolved, as vLLM would resolve it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.catalogue.attention import WIDTHS
from agent.catalogue.cards import Card
from agent.catalogue.fetch import ModelSource
from agent.catalogue.overhead import Running, defaults, usable_share
from agent.catalogue.quantization import Quantization, named, of_checkpoint
from agent.catalogue.shapes import Shape, read_shape
from agent.errors import ConfigurationError

USUAL_CONTEXT = 8192
"""The context that is planned for where nobody asks for another one."""
_SEQUENCES_OF_STATEFUL = 16  # every sequence costs a whole state while graphs are profiled
_NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")  # vllm/config/model.py
_POOLING_ENDINGS = ("Model", "Classification", "RewardModel")
_COUNTS = (
    *("max_model_len", "max_num_seqs", "max_num_batched_tokens"),
    *("kv_cache_memory_bytes", "tensor_parallel_size", "block_size"),
)


@dataclass(frozen=True)
class Case:
    """A model on a card, with every option chosen."""

    source: ModelSource
    shape: Shape
    card: Card
    running: Running
    utilization: float
    quantization: Quantization | None
    cache_dtype: str
    pooling: bool
    prefix_caching: bool
    context: int
    """Tokens that the model takes at most."""
    what_if: bool
    """Whether the quantisation was asked for, and is not the checkpoint's own."""
    chosen: Mapping[str, Any]
    """What the caller chose, as it was given."""
    kv_cache_bytes: int | None = None
    block_size: int | None = None


def resolve(
    source: ModelSource,
    card: Card,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    max_model_len: int | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    kv_cache_dtype: str = "auto",
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float | None = None,
    enforce_eager: bool = False,
    images: bool = True,
    videos: bool = True,
    prefix_caching: bool | None = None,
    kv_cache_memory_bytes: int | None = None,
    block_size: int | None = None,
    whole_context: bool = False,
    serving: bool = True,
) -> Case:
    """Fill in what was left open.

    Raises:
        ConfigurationError: A value is impossible.
        FitError: The model's configuration lacks something.
    """
    chosen = {key: value for key, value in locals().items() if key not in ("source", "card")}
    shape = read_shape(source.config)
    _check_numbers(chosen)
    pooling = _is_pooling(source, shape)
    stored = of_checkpoint(shape.config) or of_checkpoint(shape.text)
    asked = named(quantization) if quantization and quantization != "auto" else None
    what_if = asked is not None and (stored is None or stored.name != asked.name)
    method = asked if what_if else stored
    context = min(shape.limit, source.longest or shape.limit)
    length = _length(max_model_len, context, usual=shape.context, whole=whole_context)
    usual = defaults(card, serving=serving, world_size=tensor_parallel_size)
    sequences = max_num_seqs or usual.max_num_seqs
    if max_num_seqs is None and shape.stateful:
        sequences = min(sequences, _SEQUENCES_OF_STATEFUL)
    batched = max_num_batched_tokens or max(usual.max_num_batched_tokens, 0)
    if shape.encoder_only:  # whole texts at once: no chunked prefill
        batched = max(batched, length)
    running = Running(
        max_model_len=length,
        max_num_seqs=sequences,
        max_num_batched_tokens=batched,
        dtype=_dtype(dtype, shape, card, pooling=pooling),
        tensor_parallel_size=tensor_parallel_size,
        enforce_eager=enforce_eager or card.cpu,
        images=images,
        videos=videos,
    )
    forced = stored.cache_dtype if stored is not None and kv_cache_dtype == "auto" else None
    return Case(
        source=source,
        shape=shape,
        card=card,
        running=running,
        utilization=gpu_memory_utilization or usable_share(card),
        quantization=method,
        cache_dtype=forced or kv_cache_dtype,
        pooling=pooling,
        prefix_caching=(not shape.encoder_only) if prefix_caching is None else prefix_caching,
        context=context,
        what_if=what_if,
        chosen=chosen,
        kv_cache_bytes=kv_cache_memory_bytes,
        block_size=block_size,
    )


def _check_numbers(chosen: Mapping[str, Any]) -> None:
    for name in _COUNTS:
        number = chosen[name]
        if number is not None and not (isinstance(number, int) and number >= 1):
            raise ConfigurationError(f"{name} is {number!r}, and must be a whole number of at least 1")
    share = chosen["gpu_memory_utilization"]
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        raise ConfigurationError(
            f"gpu_memory_utilization is {share!r}, and must be a number above 0 and at most 1"
        )


def _is_pooling(source: ModelSource, shape: Shape) -> bool:
    if source.entry is not None:
        return source.entry.pooling_task
    chat = shape.architecture.endswith(("ChatModel", "ForConditionalGeneration"))
    return shape.encoder_only or (shape.architecture.endswith(_POOLING_ENDINGS) and not chat)


def _length(asked: int | None, context: int, *, usual: int, whole: bool) -> int:
    if asked is None:
        return min(context, usual) if whole else min(context, usual, USUAL_CONTEXT)
    if asked > context:
        raise ConfigurationError(f"max_model_len is {asked}, and the model is made for {context} tokens")
    return asked


def _dtype(asked: str, shape: Shape, card: Card, *, pooling: bool) -> str:
    """The type that vLLM computes in (``_resolve_auto_dtype`` in ``vllm/config/model.py``)."""
    own = asked if asked != "auto" else shape.dtype
    if own not in WIDTHS:
        if asked != "auto":
            raise ConfigurationError(f"dtype {asked!r} is not one of auto, {', '.join(WIDTHS)}")
        own = "bfloat16"
    own = {"half": "float16", "float": "float32"}.get(own, own)
    if asked != "auto":
        return own
    no_bfloat16 = not card.cpu and card.capability < 80
    if own == "float32":
        half = pooling and shape.model_type not in _NO_FLOAT16
        return "float16" if half or no_bfloat16 else "bfloat16"
    return "float16" if own == "bfloat16" and no_bfloat16 else own
