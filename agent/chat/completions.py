"""From completions on the wire to LangChain's generations. Pure functions, shared by all call forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from agent.chat.sampling import TextSampling
from agent.engines.base import Response


def llm_result(responses: Iterable[Response], sampling: TextSampling) -> LLMResult:
    """Convert the answers of a batch, one per prompt; the counts of tokens are summed up."""
    answers = list(responses)
    output = {
        "model_name": answers[0].get("model") if answers else None,
        "token_usage": _sum(usage for answer in answers if isinstance(usage := answer.get("usage"), Mapping)),
    }
    return LLMResult(generations=[generations(answer, sampling) for answer in answers], llm_output=output)


def generations(response: Response, sampling: TextSampling) -> list[Generation]:
    """Convert one answer: the ``n`` best sequences where more were generated, the best one first."""
    choices = [_cut(choice, sampling) for choice in response["choices"]]
    found = [Generation(text=choice["text"], generation_info=_info(choice, sampling)) for choice in choices]
    if sampling.best_of is not None and not sampling.use_beam_search:  # vLLM has ranked the beams itself
        found.sort(key=_likelihood, reverse=True)
    return found[: sampling.n]


def generation_chunks(
    chunk: Response, sampling: TextSampling, *, ended: bool = False
) -> Iterator[GenerationChunk]:
    """Convert one chunk of a stream, without its counts of tokens: of those the last ones hold.

    Args:
        chunk: The chunk in wire form.
        sampling: What was asked for.
        ended: Whether a chunk before said why it ended: LangChain would join a second reason to the first.
    """
    for given in chunk.get("choices") or ():
        choice = {**given, "finish_reason": None, "stop_reason": None} if ended else given
        info = _info(choice, sampling)
        if choice.get("text") or info:
            yield GenerationChunk(text=choice.get("text") or "", generation_info=info or None)


def _info(choice: Mapping[str, Any], sampling: TextSampling) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if reason := choice.get("finish_reason"):
        info["finish_reason"] = reason
    if choice.get("stop_reason") is not None:
        info["stop_reason"] = choice["stop_reason"]
    if logprobs := _logprobs(choice):
        if sampling.logprobs is not None:
            info["logprobs"] = {**logprobs, "top_logprobs": _likeliest(logprobs, sampling.logprobs)}
        if sampling.ranked:
            info["cumulative_logprob"] = sum(value or 0.0 for value in logprobs["token_logprobs"])
    return info


def _logprobs(choice: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the log-probabilities; None where other software gives them in another form, as for chats."""
    found = choice.get("logprobs")
    known = isinstance(found, Mapping) and all(
        isinstance(found.get(name), list) for name in ("tokens", "token_logprobs")
    )
    return found if known else None


def _likelihood(generation: Generation) -> float:
    return float((generation.generation_info or {}).get("cumulative_logprob", float("-inf")))


def _likeliest(logprobs: Mapping[str, Any], count: int) -> list[dict[str, float]]:
    """Keep the ``count`` likeliest tokens of each position, and the chosen one.

    vLLM puts the chosen token first and counts it in, or not, as it happens to be among the likeliest.
    """
    kept = []
    told = logprobs.get("top_logprobs")
    alternatives = told if isinstance(told, list) else ()
    for token, chosen, others in zip(
        logprobs["tokens"], logprobs["token_logprobs"], alternatives, strict=False
    ):
        known = others if isinstance(others, Mapping) else {}
        best = sorted(known.items(), key=lambda item: item[1], reverse=True)[:count]
        kept.append({**dict(best), token: chosen})
    return kept


def _cut(choice: Mapping[str, Any], sampling: TextSampling) -> Mapping[str, Any]:
    """End a beam at the first of the stop texts: vLLM's beam search does not know them."""
    if not (sampling.use_beam_search and sampling.stop):
        return choice
    text = choice["text"]
    places = [(place, end) for end in sampling.stop if (place := text.find(end)) >= 0]
    if not places:
        return choice
    place, end = min(places)
    logprobs = choice.get("logprobs")
    if logprobs and (offsets := logprobs.get("text_offset")):
        whole = sum(offset < place + len(end) for offset in offsets)
        logprobs = {name: values[:whole] for name, values in logprobs.items()}
    length = place + len(end) * sampling.include_stop_str_in_output
    return {
        **choice,
        "text": text[:length],
        "logprobs": logprobs,
        "finish_reason": "stop",
        "stop_reason": end,
    }


def _sum(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            if isinstance(value, Mapping):
                total[name] = _sum([total.get(name) or {}, value])
            elif isinstance(value, int):
                total[name] = total.get(name, 0) + value
    return total
