"""What a log of vLLM says about memory, beside what was foretold, and what the difference teaches.

The lines are those of vLLM 0.6 to 0.32 (``vllm/v1/worker/gpu_worker.py``, ``vllm/v1/core/kv_cache_utils.py``
and their predecessors); whatever else stands in the log is passed over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from agent.catalogue.bands import Band
from agent.catalogue.estimate import Calibration
from agent.catalogue.fit import Fit
from agent.errors import ConfigurationError

_NUMBER = r"(-?[\d.]+)\s?GiB"
_LINES: tuple[tuple[str, str], ...] = (
    ("weights_gib", rf"(?:Model loading|Loading model weights) took {_NUMBER}"),
    ("weights_gib", rf"model weights take {_NUMBER}"),
    ("kv_gib", rf"Available KV cache memory: {_NUMBER}"),
    ("kv_gib", rf"reserved for KV Cache is {_NUMBER}"),
    ("kv_gib", rf"available KV cache memory \({_NUMBER}\)"),
    ("kv_tokens", r"KV cache size: ([\d,]+) tokens"),
    ("concurrency", r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x"),
    ("max_model_len", r"Maximum concurrency for ([\d,]+) tokens per request"),
    ("max_model_len", r"Using max model len ([\d,]+)"),
    ("batched_tokens", r"max_num_batched_tokens=([\d,]+)"),
    ("graphs_gib", rf"(?:Graph capturing finished in .*? took|and) {_NUMBER}(?: for CUDAGraph memory)?$"),
    ("graphs_gib", rf"and {_NUMBER} for CUDAGraph memory"),
    ("activations_gib", rf"PyTorch activation peak memory takes {_NUMBER}"),
    ("activations_gib", rf"{_NUMBER} for peak activation"),
    ("total_gib", r"Free memory on device(?: cuda:\d+)? \([\d.]+/([\d.]+) GiB\)"),
    ("free_gib", r"Free memory on device(?: cuda:\d+)? \(([\d.]+)/[\d.]+ GiB\)"),
    ("total_gib", rf"total_gpu_memory \({_NUMBER}\)"),
    ("utilization", r"Desired GPU memory utilization is \(([\d.]+),"),
    ("utilization", r"gpu_memory_utilization \(([\d.]+)\)"),
)
_FAILURES = (
    "No available memory for the cache blocks",
    "KV cache is needed, which is larger than the available",
    "exceeds available Mamba cache blocks",
    "CUDA out of memory",
    "OutOfMemoryError",
    "is less than desired GPU memory utilization",
)
_ARGUMENTS = re.compile(r"non-default args: (\{.*\})")


@dataclass(frozen=True)
class LoggedMemory:
    """What a log says; None for what it does not."""

    weights_gib: float | None = None
    kv_gib: float | None = None
    kv_tokens: float | None = None
    concurrency: float | None = None
    graphs_gib: float | None = None
    activations_gib: float | None = None
    total_gib: float | None = None
    free_gib: float | None = None
    utilization: float | None = None
    max_model_len: float | None = None
    batched_tokens: float | None = None
    failure: str | None = None
    """The line with which vLLM gave up for want of memory."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What vLLM was started with, as far as it says."""


def read_log(text: str) -> LoggedMemory:
    """Read a log of ``vllm serve`` or ``vllm.LLM``.

    Raises:
        ConfigurationError: It says nothing about memory.
    """
    found: dict[str, Any] = {}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        for name, pattern in _LINES:
            if match := re.search(pattern, line.rstrip()):
                found[name] = float(match[1].replace(",", "").rstrip("."))
        if failure := next((mark for mark in _FAILURES if mark in line), None):
            found.setdefault("failure", failure)
        if match := _ARGUMENTS.search(line):
            found["arguments"] = _arguments(match[1])
    if not found.keys() & {"weights_gib", "kv_gib", "kv_tokens", "failure", "free_gib"}:
        msg = "this log says nothing about memory: no «Model loading took …» and no «KV cache size» is in it"
        raise ConfigurationError(msg)
    return LoggedMemory(**found)


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # an argument that is no plain value
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Difference:
    """One number: foretold and logged."""

    name: str
    predicted: Band
    logged: float
    unit: str

    @property
    def error(self) -> float | None:
        """By which share of the logged number the middle is off; None where the log has zero."""
        return self.predicted.mid / self.logged - 1 if self.logged else None

    @property
    def inside(self) -> bool:
        """Whether the logged number lies in the band, as exactly as logs are written."""
        slack = 0.005 if self.unit == "GiB" else 0.0
        return self.predicted.low - slack <= self.logged <= self.predicted.high + slack

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name != "predicted"},
            "predicted": self.predicted.to_dict(),
            "error": self.error,
            "inside": self.inside,
        }


def compare(fit: Fit, logged: LoggedMemory) -> list[Difference]:
    """What was foretold beside what was logged, for everything that the log has."""
    pairs = (
        ("weights", fit.weights_gib, logged.weights_gib, "GiB"),
        ("KV cache", fit.kv_gib, logged.kv_gib, "GiB"),
        ("KV cache", fit.kv_tokens, logged.kv_tokens, "tokens"),
        ("requests at once", fit.concurrency, logged.concurrency, "x"),
        ("CUDA graphs", fit.graphs_gib, logged.graphs_gib, "GiB"),
    )
    return [Difference(name, band, value, unit) for name, band, value, unit in pairs if value is not None]


def calibrate(fit: Fit, logged: LoggedMemory) -> Calibration:
    """What the log teaches about this card and system: how much vLLM took beside weights and KV cache.

    Raises:
        ConfigurationError: The log does not say what is needed for that.
    """
    if logged.kv_gib is None:
        msg = "nothing can be learned from this log: «Available KV cache memory» is missing in it"
        raise ConfigurationError(msg)
    weights = logged.weights_gib if logged.weights_gib is not None else fit.weights_gib.mid
    measured = fit.budget_gib - weights - logged.kv_gib
    parts = (fit.activations_gib, fit.graphs_gib, fit.overhead_gib)
    return Calibration(measured - sum(part.mid for part in parts))
