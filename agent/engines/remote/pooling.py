"""The routes of vLLM's server for pooling models, and how it says that its model is for another task."""

from __future__ import annotations

from collections.abc import Mapping

from agent.engines.base import PoolingRoute
from agent.engines.remote.connection import RefusedError

PATHS: Mapping[PoolingRoute, str] = {
    "embeddings": "embeddings",
    "rerank": "rerank",
    "classify": "/classify",
    "pooling": "/pooling",
    "tokenize": "/tokenize",
}
"""Some are below the API's path, some at the root only."""

_NO_ROUTE = (404, 405, 501)
_WRONG_TASK = ("Unsupported task", "Try switching the model's pooling_task")


def for_another_task(error: RefusedError) -> bool:
    """Whether a request was refused because the model does not do such a thing.

    A server lacks the routes for what its model does not do, or has them and refuses the task.
    """
    if error.status in _NO_ROUTE:
        return "does not exist" not in str(error)  # that is a model of another name
    return error.status == 400 and any(sign in str(error) for sign in _WRONG_TASK)
