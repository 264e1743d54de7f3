"""What to change when a model does not fit: every proposal is worked out before it is made.

The order is that of the cost: first what takes nothing away from answers, last what takes another card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from agent.catalogue.cards import CARDS
from agent.catalogue.case import Case
from agent.catalogue.estimate import Calibration, Estimate, estimate
from agent.catalogue.models import catalogue
from agent.catalogue.quantization import KNOWN
from agent.errors import AgentError

SHORTEST = 2048
"""A context below which a model is of no use."""
_FEW_SEQUENCES = 8
_MOST_CARDS = 8
_MORE = 1.25


@dataclass(frozen=True, slots=True)
class Advice:
    """One change, and what becomes of the model with it."""

    change: str
    """What to change, for people."""
    flags: tuple[str, ...]
    """The flags of `vllm serve` that change it; none where another model or card is meant."""
    outcome: str
    """What then holds, for people."""
    works: bool
    """Whether vLLM then starts even at the careful end of the band."""
    same_model: bool = True
    """Whether it is the same model on the same card."""


def advise(found: Estimate, *, calibration: Calibration | None = None) -> list[Advice]:
    """All changes that help, in the order of their cost."""
    proposals = []
    for advice, case in (*_settings(found), *_variants(found), *_hardware(found)):
        try:
            changed = estimate(case, calibration=calibration)
        except AgentError:
            continue  # not possible for this model
        works = changed.starts("low")
        if found.starts("low"):  # it fits already: only what makes room for more is worth a line
            better = changed.concurrency("low") >= _MORE * found.concurrency("low")
        else:
            better = works or (changed.starts("high") and not found.starts("high"))
        if better:
            proposals.append(replace(advice, outcome=_outcome(changed, works=works), works=works))
    return proposals


def _outcome(changed: Estimate, *, works: bool) -> str:
    if not changed.cache.groups:
        return "then it fits" if works else "then it may fit"
    length = changed.case.running.max_model_len
    requests = changed.concurrency("mid" if works else "high")
    return f"then {'about ' if works else 'at best '}{requests:.1f} requests of {length:,} tokens fit"


def _settings(found: Estimate) -> Iterator[tuple[Advice, Case]]:
    case, running = found.case, found.case.running

    def change(text: str, flags: tuple[str, ...], **changes: object) -> tuple[Advice, Case]:
        return Advice(text, flags, "", False), replace(case, running=replace(running, **changes))  # type: ignore[arg-type]

    if running.max_num_seqs > _FEW_SEQUENCES:
        flags = ("--max-num-seqs", str(_FEW_SEQUENCES))
        yield change(f"at most {_FEW_SEQUENCES} requests at once", flags, max_num_seqs=_FEW_SEQUENCES)
    shorter = shorter_context(found)
    if shorter:
        flags = ("--max-model-len", str(shorter))
        yield change(f"a context of {shorter:,} tokens", flags, max_model_len=shorter)
    if found.cache.groups and case.cache_dtype == "auto" and _fp8_cache(case):
        advice = Advice("an FP8 cache", ("--kv-cache-dtype", "fp8"), "", False)
        yield advice, replace(case, cache_dtype="fp8")
    if case.shape.multimodal and running.images and running.videos:
        flags = ("--limit-mm-per-prompt", '{"video": 0}')
        yield change("images, but no videos", flags, videos=False)
    if case.shape.multimodal and running.images:
        yield change("text only, without its encoder's run", ("--language-model-only",), images=False)
    if running.max_num_batched_tokens > 1024 and not case.shape.encoder_only:
        flags = ("--max-num-batched-tokens", "1024")
        yield change("smaller batches", flags, max_num_batched_tokens=1024)
    if not running.enforce_eager:
        yield change("no CUDA graphs (slower)", ("--enforce-eager",), enforce_eager=True)
    free = case.card.free_gib
    if case.utilization < 0.95 and (free is None or free >= 0.95 * case.card.total_gib):
        advice = Advice(
            "95 % of a card that shows no desktop", ("--gpu-memory-utilization", "0.95"), "", False
        )
        yield advice, replace(case, utilization=0.95)
    # All of it together, where no single change is enough.
    length = str(min(running.max_model_len, 4096))
    several = ("--max-num-seqs", str(_FEW_SEQUENCES), "--max-model-len", length)
    together = replace(
        running,
        max_num_seqs=min(running.max_num_seqs, _FEW_SEQUENCES),
        max_model_len=min(running.max_model_len, 4096),
        images=False,
    )
    extra = ("--language-model-only",) if case.shape.multimodal else ()
    fp8 = _fp8_cache(case) and case.cache_dtype == "auto"
    yield (
        Advice(
            "all of these together",
            (*several, *extra, *_fp8_flags(fp8)),
            "",
            False,
        ),
        replace(case, running=together, cache_dtype="fp8" if fp8 else case.cache_dtype),
    )


def _fp8_flags(wanted: bool) -> tuple[str, ...]:
    return ("--kv-cache-dtype", "fp8") if wanted else ()


def _fp8_cache(case: Case) -> bool:
    """FP8 caches want a card that computes in FP8, or at least converts it (8.0 and later)."""
    return case.card.capability >= 80


def shorter_context(found: Estimate) -> int | None:
    """The longest context with which vLLM starts for sure, in steps of 256; None where none is of use."""
    longest = (
        found.cache.longest(found.cache_bytes("low")) if found.left("low") > 0 and found.cache.groups else 0
    )
    whole = longest // 256 * 256
    return whole if SHORTEST <= whole < found.case.running.max_model_len else None


def _variants(found: Estimate) -> Iterator[tuple[Advice, Case]]:
    """The same model with smaller weights."""
    case = found.case
    if case.quantization is not None:
        return
    names = ("fp8", "awq") if case.card.capability < 100 else ("fp8", "awq", "nvfp4")
    for name in names:
        method = KNOWN[name]
        if case.card.capability < method.capability:
            continue
        online = ("--quantization", method.argument) if method.argument else ()
        known = _published(case, name)
        text = "FP8 weights, made while it loads" if online else f"a checkpoint in {name.upper()}"
        advice = Advice(f"{text}{f': {known}' if known else ''}", online, "", False, same_model=False)
        yield advice, replace(case, quantization=method, what_if=True)


def _published(case: Case, name: str) -> str | None:
    wanted = f"{case.source.name.rpartition('/')[2]}-{name}".lower()
    return next((key for key in catalogue() if key.lower().rpartition("/")[2] == wanted), None)


def _hardware(found: Estimate) -> Iterator[tuple[Advice, Case]]:
    case, running = found.case, found.case.running
    if case.card.cpu:
        return
    size = running.tensor_parallel_size * 2
    while size <= _MOST_CARDS:
        if case.shape.heads % size == 0:
            advice = Advice(
                f"{size} such cards", ("--tensor-parallel-size", str(size)), "", False, same_model=False
            )
            trial = replace(case, running=replace(running, tensor_parallel_size=size))
            yield advice, trial
            if _starts(trial):
                break
        size *= 2
    for card in sorted(CARDS, key=lambda each: each.total_gib):
        if card.total_gib > case.card.total_gib * 1.3 and card.capability >= 80:
            trial = replace(case, card=card)
            if _starts(trial):
                name = f"a larger card, such as {card.name}"
                yield Advice(name, (), "", works=False, same_model=False), trial
                return


def _starts(case: Case) -> bool:
    try:
        return estimate(case).starts("low")
    except AgentError:
        return False


def first_change(proposals: Sequence[Advice]) -> Advice | None:
    """The cheapest change of settings with which the model fits for sure."""
    return next((each for each in proposals if each.same_model and each.works), None)
