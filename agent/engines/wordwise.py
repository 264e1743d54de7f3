"""What the scripted engine answers as a pooling model: texts are alike as far as they have words in common.

Vectors are counts of words, each in the place that a hash gives it, so the answers are the same everywhere
and always, and a test of a retrieval graph finds what a person would expect.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from operator import mul

from agent.engines.base import PoolingRoute, Request, Response
from agent.errors import UnsupportedTaskError

_DIMENSIONS = 256
_WORD = re.compile(r"\w+|[^\w\s]")


def answer(route: PoolingRoute, request: Request) -> Response:
    """Answer one request in the form of vLLM's route.

    Raises:
        UnsupportedTaskError: What is asked for cannot be told from words.
    """
    if route == "embeddings":
        return _embeddings(request)
    if route == "tokenize":
        words = _WORD.findall(request["prompt"])
        return {"count": len(words), "tokens": list(range(len(words))), "token_strs": words}
    if route == "rerank":
        asked = vector(request["query"])
        scores = [sum(map(mul, asked, vector(text))) for text in request["documents"]]
        results = [{"index": n, "relevance_score": score} for n, score in enumerate(scores)]
        return {"results": sorted(results, key=lambda each: -each["relevance_score"])}
    raise UnsupportedTaskError(
        f"a scripted engine knows no classes: ScriptedEngine(…, pooled=function) answers {route!r} by one"
    )


def vector(text: str, dimensions: int = _DIMENSIONS) -> list[float]:
    """Counts of words by their hash, of length 1; the zero vector for a text without words."""
    counts = [0.0] * dimensions
    for word in _WORD.findall(text.casefold()):
        counts[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % dimensions] += 1
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]


def _embeddings(request: Request) -> Response:
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    size = request.get("dimensions") or _DIMENSIONS
    data = []
    for number, text in enumerate(texts):
        values = vector(text, size)
        packed = request.get("encoding_format") == "base64"
        coded = base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if packed else values
        data.append({"index": number, "object": "embedding", "embedding": coded})
    return {"object": "list", "model": "scripted", "data": data}
