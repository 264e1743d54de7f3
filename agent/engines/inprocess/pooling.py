"""vLLM's serving layer for pooling models, called without HTTP: embeddings, scores, classes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from vllm.entrypoints.pooling.classify.protocol import ClassificationRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
from vllm.entrypoints.pooling.pooling.protocol import PoolingRequest
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest
from vllm.entrypoints.serve.tokenize.protocol import TokenizeCompletionRequest

from agent.engines.base import PoolingRoute, Request
from agent.engines.inprocess.forms import validated
from agent.errors import UnsupportedTaskError

# vLLM builds its answers with a class that FastAPI advises against; the caller can do nothing about that.
warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")


@dataclass(frozen=True)
class _Handler:
    """Who answers a route."""

    name: str
    """The part of vLLM's state."""

    form: TypeAdapter[Any]
    """What its requests look like."""

    does: str
    """What a model does that has it, for an error's sentence."""


_HANDLERS: Mapping[PoolingRoute, _Handler] = {
    "embeddings": _Handler("serving_embedding", TypeAdapter(EmbeddingRequest), "makes no embeddings"),
    "classify": _Handler("serving_classification", TypeAdapter(ClassificationRequest), "classifies no texts"),
    "rerank": _Handler("serving_scores", TypeAdapter(RerankRequest), "scores no pairs of texts"),
    "pooling": _Handler("serving_pooling", TypeAdapter(PoolingRequest), "is no pooling model"),
}


async def pooled(state: Any, route: PoolingRoute, request: Request, tasks: Sequence[str]) -> Any:
    """Answer one request, as vLLM's server would.

    Args:
        state: What vLLM's ``init_app_state`` has filled.
        route: Which of its routes is meant.
        request: The body.
        tasks: What the model does, for an error's sentence.

    Raises:
        UnsupportedTaskError: The model is for another task.
        RequestError: The body is not in the route's form.
    """
    if route == "tokenize":
        wanted = validated(TokenizeCompletionRequest.model_validate, request)
        tokenized = await state.serving_tokenization.create_tokenize(wanted, None)
        return tokenized.model_dump() if hasattr(tokenized, "tokens") else tokenized
    handler = _HANDLERS[route]
    serving = getattr(state, handler.name, None)
    wanted = validated(handler.form.validate_python, request)
    task = getattr(wanted, "task", None)
    if serving is None:
        msg = f"this model {handler.does}; {_does(tasks)}; take a model for the task"
        raise UnsupportedTaskError(msg)
    if task is not None and task not in tasks[:1]:
        remedy = "take a model for the task"
        if task in tasks:
            remedy = f"start it with vllm_kwargs={{'pooler_config': {{'task': {task!r}}}}}"
        raise UnsupportedTaskError(f"this model is not set up for {task}; {_does(tasks)}; {remedy}")
    answer = await serving(wanted)
    # A response of HTTP, or vLLM's record of an error, which the caller translates.
    return json.loads(bytes(answer.body)) if hasattr(answer, "body") else answer


def labels(hf_config: Any) -> tuple[str, ...]:
    """Return the names of a classifier's classes in its order."""
    named = getattr(hf_config, "id2label", None)
    if not isinstance(named, Mapping):
        return ()
    return tuple(str(named[key]) for key in sorted(named, key=int))


def _does(tasks: Sequence[str]) -> str:
    return f"it is one for: {', '.join(tasks)}"
