"""Does a model fit a card? The planner that answers before anything is loaded.

Everything is arithmetic on ``config.json`` and a list of tensors: vLLM and torch are not imported, no weight
is read, and an answer takes milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.catalogue.advice import SHORTEST, Advice, advise, first_change, shorter_context
from agent.catalogue.bands import Band
from agent.catalogue.card_names import find_card
from agent.catalogue.cards import DEFAULT_CARD, GIB, Card, with_free
from agent.catalogue.case import resolve
from agent.catalogue.estimate import Calibration, Estimate, estimate
from agent.catalogue.fetch import find_source
from agent.catalogue.flags import serve_flags, with_flags
from agent.catalogue.support import Support, support_of

Verdict = Literal["recommended", "fits", "may work", "won't work"]
ENDS = ("low", "mid", "high")


@dataclass(frozen=True)
class Fit:
    """Whether a model fits a card, and what then fits into it. Sizes are of one card, in GiB."""

    model: str
    """The id or directory that was asked about."""
    card: Card
    """The card."""
    verdict: Verdict
    """``recommended``: two requests of full length fit for sure; ``fits``: one does; ``may work``: only at
    the good end of the band, or after a change; ``won't work``."""
    possible: bool
    """Whether vLLM starts exactly as asked, at least at the good end of the band."""
    reasons: tuple[str, ...]
    """Why, the most important first."""
    advice: tuple[Advice, ...]
    """What to change, where not everything is as asked."""
    arguments: list[str]
    """The flags for ``vllm serve MODEL``; where it may work after a change, with that change."""
    other_checkpoint: bool
    """Whether another checkpoint of the model is meant, because vLLM cannot quantise in that way itself."""
    weights_gib: Band
    """«Model loading took» in vLLM's log."""
    kv_gib: Band
    """«Available KV cache memory»; below zero where there is none."""
    kv_tokens: Band
    """«GPU KV cache size»."""
    concurrency: Band
    """«Maximum concurrency» for requests of ``max_model_len``; ``max_num_seqs`` for models without a
    cache.
    """
    activations_gib: Band
    """The peak of a dummy run."""
    graphs_gib: Band
    """CUDA graphs."""
    overhead_gib: Band
    """Context of the card, libraries, fragmentation."""
    budget_gib: float
    """Memory times ``gpu_memory_utilization``."""
    request_gib: float
    """KV cache that one request of full length needs."""
    kv_bytes_per_token: int
    """Bytes of the cache for each token more."""
    max_model_len: int
    """The context that was planned for."""
    longest: Band
    """The longest context with which vLLM starts."""
    context: int
    """The context that the model is made for."""
    dtype: str
    quantization: str | None
    weights_source: str
    """Where the size of the weights comes from."""
    options: Mapping[str, Any] = field(repr=False)
    """All options, those included that were left open."""

    @property
    def starts(self) -> bool:
        """Whether it is worth a try: the verdict is anything but ``won't work``."""
        return self.verdict != "won't work"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        bands = {name: value.to_dict() for name, value in vars(self).items() if isinstance(value, Band)}
        card = {"name": self.card.name, "total_gib": self.card.total_gib, "free_gib": self.card.free_gib}
        advice = [
            {"change": each.change, "flags": list(each.flags), "outcome": each.outcome, "works": each.works}
            for each in self.advice
        ]
        plain = {"card": card, "advice": advice, "reasons": list(self.reasons), "options": dict(self.options)}
        return {**vars(self), **bands, **plain}


def plan_fit(
    model: str | os.PathLike[str],
    *,
    gpu: str | Card = DEFAULT_CARD,
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
    free_gib: float | None = None,
    calibration: Calibration | None = None,
    block_size: int | None = None,
    whole_context: bool = False,
    serving: bool = True,
    endpoint: str | None = None,
    offline: bool = False,
) -> Fit:
    """Foretell the memory that vLLM 0.32 takes for a model, and whether it starts.

    Args:
        model: A directory, an id of the catalogue (its last part is enough), or any hub id, of which only
            ``config.json`` and the list of tensors are asked.
        gpu: A card's name, a size such as ``"24GB"``, ``"auto"`` for the card of this machine, ``"cpu"``, or
            a record.
        dtype: As vLLM's ``--dtype``.
        quantization: How the weights would be stored: ``"awq"``, ``"gptq"``, ``"fp8"``, ``"int8"``,
            ``"nvfp4"``, ``"mxfp4"``, ``"w4a16"``, ``"bitsandbytes"``, ``"gguf"``; None for what the
            checkpoint says.
        max_model_len: Tokens of a request; None for 8192, or what the model takes if that is less.
        max_num_seqs: Requests at once; None for vLLM's default on that card (16 for models with states).
        max_num_batched_tokens: Tokens of one step; None for vLLM's default.
        kv_cache_dtype: As vLLM's ``--kv-cache-dtype``.
        tensor_parallel_size: Cards that share the model.
        gpu_memory_utilization: Share of the card; None for 0.90, or less where less is free.
        enforce_eager: Whether CUDA graphs are left out.
        images: Whether a multimodal model takes images.
        videos: Whether it takes videos.
        prefix_caching: None for vLLM's default.
        kv_cache_memory_bytes: A fixed KV cache.
        free_gib: Free memory of the card, where it is known.
        calibration: What a measured start taught (:func:`agent.catalogue.logs.calibrate`).
        block_size: Tokens in a block; None for vLLM's default.
        whole_context: Whether None for ``max_model_len`` means the model's whole context, as vLLM takes it.
        serving: Whether for ``vllm serve``; else for ``vllm.LLM``, which has larger batches.
        endpoint: The hub's address; None for ``HF_ENDPOINT`` or the hub itself.
        offline: Whether to ask nothing of the network.

    Raises:
        ModelNotFoundError: There is no such model.
        FitError: Its memory cannot be foretold; the message says what is missing.
        ConfigurationError: An argument is impossible.
    """
    card = with_free(find_card(gpu) if isinstance(gpu, str) else gpu, free_gib)
    source = find_source(model, endpoint=endpoint, offline=offline)
    case = resolve(
        source,
        card,
        dtype=dtype,
        quantization=quantization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_dtype=kv_cache_dtype,
        tensor_parallel_size=tensor_parallel_size,
        gpu_memory_utilization=gpu_memory_utilization,
        enforce_eager=enforce_eager,
        images=images,
        videos=videos,
        prefix_caching=prefix_caching,
        kv_cache_memory_bytes=kv_cache_memory_bytes,
        block_size=block_size,
        whole_context=whole_context,
        serving=serving,
    )
    found = estimate(case, calibration=calibration)
    return _fit(found, support_of(case.shape.architecture), calibration)


def _fit(found: Estimate, support: Support, calibration: Calibration | None) -> Fit:
    case, running = found.case, found.case.running
    enough = found.starts("low") and found.concurrency("low") >= 2
    settled = enough or bool(_obstacles(found, support))
    proposals = () if settled else tuple(advise(found, calibration=calibration))
    verdict, reasons = _judge(found, support, proposals)
    change = first_change(proposals) if verdict == "may work" else None
    error = found.weights.error * found.weights.size / GIB
    weights = found.weights.size / GIB
    return Fit(
        model=case.source.name,
        card=case.card,
        verdict=verdict,
        possible=found.starts("high"),
        reasons=tuple(reasons),
        advice=proposals if verdict != "recommended" else (),
        arguments=with_flags(serve_flags(case), change.flags if change else ()),
        other_checkpoint=case.what_if and not (case.quantization and case.quantization.argument),
        weights_gib=Band(weights - error, weights, weights + error),
        kv_gib=Band(*(found.cache_bytes(end) / GIB if found.cache.groups else 0.0 for end in ENDS)),
        kv_tokens=Band(*(float(found.tokens(end)) for end in ENDS)),
        concurrency=Band(*(found.concurrency(end) for end in ENDS)),
        activations_gib=found.overhead.activations,
        graphs_gib=found.overhead.graphs,
        overhead_gib=_remaining(found),
        budget_gib=found.budget / GIB,
        request_gib=found.cache.request_bytes / GIB,
        kv_bytes_per_token=found.token_bytes,
        max_model_len=running.max_model_len,
        longest=_longest(found),
        context=case.context,
        dtype=running.dtype,
        quantization=case.quantization.name if case.quantization else None,
        weights_source=found.weights.source,
        options={
            **vars_of(running),
            "gpu_memory_utilization": case.utilization,
            "kv_cache_dtype": case.cache_dtype,
        },
    )


def vars_of(record: Any) -> dict[str, Any]:
    """The fields of a record with slots."""
    return {name: getattr(record, name) for name in record.__slots__}


def _remaining(found: Estimate) -> Band:
    """What of the rest is neither activations nor graphs, so that the parts add up."""
    parts = (found.overhead.activations, found.overhead.graphs)
    return Band(*(getattr(found.rest_gib, end) - sum(getattr(part, end) for part in parts) for end in ENDS))


def _longest(found: Estimate) -> Band:
    """With the whole context that the model is made for asked."""
    whole = found.cache.with_length(found.case.context)
    return Band(
        *(float(whole.longest(found.cache_bytes(end))) if found.left(end) > 0 else 0.0 for end in ENDS)
    )


def _obstacles(found: Estimate, support: Support) -> list[str]:
    """What no setting changes."""
    case = found.case
    reasons = [] if support.runs else [support.told]
    method = case.quantization
    if method is not None and not case.card.cpu and case.card.capability < method.capability:
        reasons.append(
            f"{method.name} needs compute capability {method.capability / 10:.1f}, and {case.card.name} has "
            f"{case.card.capability / 10:.1f}"
        )
    return reasons


def _judge(found: Estimate, support: Support, proposals: tuple[Advice, ...]) -> tuple[Verdict, list[str]]:
    case = found.case
    if obstacles := _obstacles(found, support):
        return "won't work", obstacles
    verdict, reason = _by_memory(found, proposals)
    reasons = [reason]
    method = case.quantization
    if method is not None and method.plugin and verdict != "won't work":
        verdict = "may work"
        reasons.insert(0, f"vLLM 0.32 needs the package {method.plugin} for {method.name}")
    if case.card.free_gib is not None and not case.card.cpu and case.card.free_gib * GIB < found.budget:
        share = f"{case.utilization:.2f} of {case.card.total_gib:.2f} GiB"
        reasons.insert(
            0, f"{share} are asked, and {case.card.free_gib:.2f} GiB are free: vLLM refuses to start"
        )
        verdict = "won't work"
    if case.what_if and method is not None and not method.argument:
        reasons.append(f"a checkpoint in {method.name} is meant, which has a name of its own")
    if support.told:
        reasons.append(support.told)
    if case.source.entry is not None:
        reasons += case.source.entry.problems
    return verdict, reasons


def _by_memory(found: Estimate, proposals: tuple[Advice, ...]) -> tuple[Verdict, str]:
    running, cache = found.case.running, found.cache
    length = running.max_model_len
    if found.starts("low"):
        requests = found.concurrency("low")
        if not cache.groups:
            return "recommended", "fits with room to spare; it needs no KV cache"
        told = f"at least {requests:.1f} requests of {length:,} tokens fit"
        return ("recommended" if requests >= 2 else "fits"), told
    need, left = cache.least_bytes / GIB, found.left("mid") / GIB
    if cache.groups and found.case.kv_cache_bytes is not None:
        left = min(left, found.case.kv_cache_bytes / GIB)
    if not found.states_fit("mid") and found.left("high") > 0:
        told = f"{running.max_num_seqs} requests at once need a state each, and there is no room for so many"
    elif left <= 0:
        told = f"weights and overhead leave no room: {-left:.1f} GiB are missing before any KV cache"
    else:
        told = f"a request of {length:,} tokens needs {need:.2f} GiB of KV cache, and {left:.2f} GiB are left"
    if found.starts("high"):
        safe = shorter_context(found)
        limit = f"; {safe:,} tokens are safe" if safe else ""
        return (
            "may work",
            f"{told}; it starts only if the overhead is at the low end of what was measured{limit}",
        )
    change = first_change(proposals)
    if change is not None and length >= SHORTEST:
        return "may work", f"{told}; it fits with {change.change}"
    return "won't work", told
