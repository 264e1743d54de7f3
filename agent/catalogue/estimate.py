"""The memory of one case, as bands: weights, everything beside them, and what is left for the KV cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.catalogue.attention import WIDTHS, CacheOptions, layer_caches
from agent.catalogue.bands import Band
from agent.catalogue.caches import Cache, Demand, divide
from agent.catalogue.cards import GIB
from agent.catalogue.case import Case
from agent.catalogue.overhead import Overhead, captured_sizes, overhead
from agent.catalogue.shapes import MAMBA
from agent.catalogue.weights import Weights, counted_weights, stored_weights

_CPU_FIXED = Band(0.5, 1.0, 1.8)  # GiB of the process beside weights and cache: Python, torch, vLLM


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one measured start teaches about a card and its system."""

    shift_gib: float
    """How much more than the middle vLLM took beside weights and cache."""


@dataclass(frozen=True)
class Estimate:
    """What one case comes to on one card."""

    case: Case
    weights: Weights
    overhead: Overhead
    cache: Cache
    rest_gib: Band
    """Everything beside weights and cache."""

    @property
    def budget(self) -> int:
        """Bytes that vLLM may take: a share of all memory, free or not."""
        case = self.case
        budget = int(case.card.total * case.utilization)
        if case.card.cpu and case.card.free_gib is not None:
            return min(budget, int(case.card.free_gib * GIB))
        return budget

    def left(self, end: str) -> int:
        """Bytes that are left for the cache in the worst case (``"low"``), the ``"mid"`` or the best
        (``"high"``).
        """
        other = {"low": "high", "mid": "mid", "high": "low"}[end]
        error = {"low": 1 + self.weights.error, "mid": 1.0, "high": 1 - self.weights.error}[end]
        rest: float = getattr(self.rest_gib, other)
        return self.budget - round(self.weights.size * error) - round(rest * GIB)

    def cache_bytes(self, end: str) -> int:
        """Bytes of the cache: what is left, or what was asked for."""
        asked = self.case.kv_cache_bytes
        return self.left(end) if asked is None else asked

    def starts(self, end: str) -> bool:
        """Whether vLLM starts."""
        if self.left(end) < 0 or (self.case.kv_cache_bytes or 0) > self.left(end):
            return False
        if not self.cache.groups:
            return True
        return self.cache.starts(self.cache_bytes(end)) and self.states_fit(end)

    def states_fit(self, end: str) -> bool:
        """Whether a model with states has a block for every sequence, now and while graphs are profiled.

        ``config/compilation.py`` refuses more sequences than blocks; the profile takes as many blocks as the
        largest graph has sequences, before the cache is there (``_init_minimal_kv_cache_for_profiling``).
        """
        if not self.case.shape.stateful:
            return True
        running = self.case.running
        if running.max_num_seqs > self.cache.blocks(self.cache_bytes(end)):
            return False
        if running.enforce_eager:
            return True
        profiled = min(running.max_num_seqs, 512) * self.cache.block_bytes
        return profiled <= self.left(end) if captured_sizes(running) else True

    def concurrency(self, end: str) -> float:
        """Requests of full length at once."""
        if not self.cache.groups:
            return float(self.case.running.max_num_seqs) if self.left(end) >= 0 else 0.0
        if self.left(end) < 0:
            return 0.0
        return self.cache.concurrency(self.cache_bytes(end))

    def tokens(self, end: str) -> int:
        """The KV cache in tokens, as vLLM logs it."""
        return self.cache.tokens(self.cache_bytes(end)) if self.left(end) >= 0 else 0

    @property
    def token_bytes(self) -> int:
        """Bytes of the cache that one more token takes while all layers keep it."""
        return sum(
            layer.heads * layer.head_bytes
            for group in self.cache.groups
            for layer in group
            if layer.kind.value in ("full", "mla")
        )


def estimate(case: Case, *, calibration: Calibration | None = None) -> Estimate:
    """Work one case out.

    Raises:
        FitError: Something about the model is not known.
        ConfigurationError: An option is impossible for it.
    """
    extra = overhead(case.shape, case.running)
    if case.card.cpu:
        extra = replace(extra, graphs=Band.exactly(0.0), fixed=_CPU_FIXED)
    rest = extra.total
    if calibration is not None:
        # One measured start says where within the band this system is; half of its width is left for the
        # next.
        middle = rest.mid + calibration.shift_gib
        rest = Band(middle - (rest.mid - rest.low) / 2, middle, middle + (rest.high - rest.mid) / 2)
    return Estimate(case, weights_of(case), extra, cache_of(case), rest)


def weights_of(case: Case) -> Weights:
    """The weights on one card, from the best source there is."""
    running, shape, source = case.running, case.shape, case.source
    if source.tensors is not None and not case.what_if:
        return stored_weights(
            shape,
            source.tensors,
            dtype=running.dtype,
            tensor_parallel_size=running.tensor_parallel_size,
            quantized=case.quantization is not None,
            towers=running.images,
            gpu=not case.card.cpu,
        )
    parameters = source.entry.parameters if source.entry is not None else None
    if parameters is None and source.tensors is not None:
        parameters = _parameters(case)
    return counted_weights(
        shape,
        dtype=running.dtype,
        quantization=case.quantization,
        tensor_parallel_size=running.tensor_parallel_size,
        parameters=parameters,
        headless=case.pooling,
        towers=running.images,
        gpu=not case.card.cpu,
    )


def _parameters(case: Case) -> int | None:
    """Parameters of an unquantised checkpoint, for the question what a quantised one would take."""
    tensors = case.source.tensors or ()
    if any(tensor.integer for tensor in tensors):
        return None
    whole = stored_weights(case.shape, tensors, dtype="float16", gpu=False)
    return whole.size // WIDTHS["float16"]


def cache_of(case: Case) -> Cache:
    """The KV cache as vLLM divides it on this card."""
    shape, running, card = case.shape, case.running, case.card
    block = 16 if not card.cpu or shape.mla else case.block_size or 128
    if not card.cpu:
        block = case.block_size or 16
    options = CacheOptions(
        dtype=running.dtype,
        cache_dtype=case.cache_dtype,
        tensor_parallel_size=running.tensor_parallel_size,
        block_size=block,
        kernel_block=32 if card.cpu else 16,
    )
    # Asynchronous scheduling keeps two batches in flight; on a CPU vLLM switches it off.
    batches = 1 if card.cpu else 2
    demand = Demand(
        max_model_len=running.max_model_len,
        in_flight=batches * running.max_num_batched_tokens,
        states=_states(case),
        encoder_tokens=max(running.max_num_batched_tokens, shape.size("max_source_positions", 0)),
    )
    return divide(layer_caches(shape, options), demand)


def _states(case: Case) -> int:
    """States that one request holds: with prefix caching the current and the last whole block's.

    Mamba2 layers keep a third one for a checkpoint within a prefill (``mamba_mixer2.py``).
    """
    if not case.prefix_caching:
        return 1
    return 3 if MAMBA in case.shape.kinds else 2
