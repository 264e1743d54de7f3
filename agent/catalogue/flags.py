"""The flags of ``vllm serve`` for a case: what decides memory, and what the catalogue knows about the
model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from agent.catalogue.case import Case
from agent.catalogue.overhead import defaults


def serve_flags(case: Case) -> list[str]:
    """All flags in a fixed order, each value a word of its own."""
    return [*_memory(case), *_types(case), *_inputs(case), *_from_catalogue(case)]


def with_flags(flags: list[str], changes: Sequence[str]) -> list[str]:
    """``flags`` with some changed or added."""
    result = list(flags)
    for name, value in _pairs(changes):
        if name in result:
            place = result.index(name)
            if value is not None:
                result[place + 1] = value
        else:
            result += [name] if value is None else [name, value]
    return result


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for place, word in enumerate(flags):
        if word.startswith("--"):
            following = flags[place + 1 : place + 2]
            yield word, following[0] if following and not following[0].startswith("--") else None


def _memory(case: Case) -> list[str]:
    running = case.running
    flags = ["--max-model-len", str(running.max_model_len)]
    if case.kv_cache_bytes is not None:
        flags += ["--kv-cache-memory-bytes", str(case.kv_cache_bytes)]
    else:
        flags += ["--gpu-memory-utilization", f"{case.utilization:g}"]
    flags += ["--max-num-seqs", str(running.max_num_seqs)]
    usual = defaults(case.card, world_size=running.tensor_parallel_size)
    if running.max_num_batched_tokens != usual.max_num_batched_tokens and not case.shape.encoder_only:
        flags += ["--max-num-batched-tokens", str(running.max_num_batched_tokens)]
    if running.tensor_parallel_size > 1:
        flags += ["--tensor-parallel-size", str(running.tensor_parallel_size)]
    if running.enforce_eager and not case.card.cpu:
        flags += ["--enforce-eager"]
    return flags


def _types(case: Case) -> list[str]:
    flags = []
    stored = case.shape.dtype
    if case.chosen["dtype"] != "auto" or stored not in (case.running.dtype, "float32"):
        flags += ["--dtype", case.running.dtype]
    if case.chosen["kv_cache_dtype"] != "auto":
        flags += ["--kv-cache-dtype", case.cache_dtype]
    if case.what_if and case.quantization is not None and case.quantization.argument:
        flags += ["--quantization", case.quantization.argument]
    return flags


def _inputs(case: Case) -> list[str]:
    if not case.shape.multimodal:
        return []
    if not case.running.images:
        return ["--language-model-only"]
    return [] if case.running.videos else ["--limit-mm-per-prompt", '{"video": 0}']


def _from_catalogue(case: Case) -> list[str]:
    """How the model is run: as what, with which parsers, and what it needs to be told."""
    entry, flags = case.source.entry, list[str]()
    if case.pooling:
        flags += ["--runner", "pooling"]
        if case.shape.architecture.endswith("ForCausalLM"):
            flags += ["--convert", "embed" if entry is None or entry.task == "embedding" else "classify"]
    if entry is None:
        return flags
    if entry.hf_overrides:
        flags += ["--hf-overrides", json.dumps(dict(entry.hf_overrides))]
    if entry.trust_remote_code:
        flags += ["--trust-remote-code"]
    if entry.tool_parser:
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", entry.tool_parser]
    if entry.reasoning_parser:
        flags += ["--reasoning-parser", entry.reasoning_parser]
    return flags
