"""What vLLM needs to be told on this machine, and what this vLLM is."""

from __future__ import annotations

import dataclasses
from typing import Any

import psutil
import torch
import vllm
from vllm.config import ProfilerConfig, StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.utils.import_utils import resolve_obj_by_qualname

from agent.engines.memory import large_import

_CPU_KV_CACHE_BYTES = 2 << 30


def with_platform_defaults(engine_args: dict[str, Any]) -> dict[str, Any]:
    """Add what this platform needs and the caller did not choose."""
    # Statistics of every step, which nothing in this process reads: a server has them for its /metrics.
    quiet = {"disable_log_stats": True}
    if not current_platform.is_cpu():
        return {**quiet, **engine_args}
    defaults: dict[str, Any] = {
        **quiet,
        # Compiling takes minutes on a CPU and gains little for the models that people run there.
        "enforce_eager": True,
        # vLLM would reserve most of the machine's memory for the KV cache.
        "kv_cache_memory_bytes": min(_CPU_KV_CACHE_BYTES, psutil.virtual_memory().available // 4),
        # Small blocks: only whole ones can be served from the prefix cache, and the CPU default is 128.
        "block_size": 32,
        "use_tqdm_on_load": False,  # a progress bar in the middle of the caller's terminal
    }
    if engine_args.get("dtype", "auto") == "auto" and not _fast_bfloat16():
        defaults["dtype"] = "float32"
    chosen = {name: value for name, value in engine_args.items() if name != "dtype" or value != "auto"}
    return {**defaults, **chosen}


def with_config_objects(engine_args: dict[str, Any]) -> dict[str, Any]:
    """Make of dictionaries what ``vllm.LLM`` makes of them too, and ``vllm.EngineArgs`` does not."""
    made = dict(engine_args)
    for name, config in (
        ("structured_outputs_config", StructuredOutputsConfig),
        ("profiler_config", ProfilerConfig),
    ):
        if isinstance(value := made.get(name), dict):
            made[name] = config(**value)
    return made


def import_worker(parallel_config: Any) -> None:
    """Import what computes in this process before anything is loaded.

    vLLM imports some 550 modules with its worker, which stay. Imported while a model is loaded, they would
    lie between what is freed when it is closed, and keep the pages that they share with it.

    Args:
        parallel_config: Of vLLM; with several cards the workers are in processes of their own.
    """
    if parallel_config.world_size == 1:
        with large_import():
            resolve_obj_by_qualname(parallel_config.worker_cls)


def _fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; otherwise float32 is several times faster."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def version() -> str:
    """Return vLLM's version for people to read."""
    return f"vLLM {vllm.__version__}"


def engine_argument_names() -> frozenset[str]:
    """Names of all engine arguments of the installed vLLM."""
    return frozenset(field.name for field in dataclasses.fields(AsyncEngineArgs))
