"""Which text was too long, which vLLM does not say of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from agent.engines.base import PoolingEngine
from agent.errors import AgentError, RequestError

_SIGNS = (
    "maximum context length",
    "max_model_len",
    "longer than the maximum",
    "maximum input length",
    "context length",
)
_MOST_COUNTED = 16  # texts of a batch, the longest ones first


async def too_long(
    error: RequestError, engine: PoolingEngine, texts: Sequence[str], first: int
) -> RequestError | None:
    """Return the error to raise where the engine refused a request for its length, naming the text.

    Args:
        error: The engine's.
        engine: It counts the tokens.
        texts: The texts of the request.
        first: The number of the first of them among all that the caller gave.
    """
    if not any(sign in str(error) for sign in _SIGNS):
        return None
    limit = (await engine.start()).max_model_len
    remedy = "shorten or cut it, or let its beginning stand for it with too_long='truncate'"
    for number in sorted(range(len(texts)), key=lambda n: -len(texts[n]))[:_MOST_COUNTED]:
        try:
            answer = await engine.pool("tokenize", {"prompt": texts[number]})
        except AgentError:
            break
        if limit is None or len(answer["tokens"]) > limit:
            size, most = len(answer["tokens"]), f"{limit:,}" if limit else "fewer"
            return RequestError(
                f"text number {first + number} has {size:,} tokens, and the model takes {most}: {remedy}"
            )
    return RequestError(f"a text is longer than the model takes ({error}): {remedy}")
