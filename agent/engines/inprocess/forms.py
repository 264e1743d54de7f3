"""Requests in the forms that vLLM's own HTTP server has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.exceptions import VLLMClientError

from agent.engines.base import Request
from agent.errors import RequestError


def validated(form: Callable[[Any], Any], request: Request) -> Any:
    """Return a request in one of vLLM's forms.

    Args:
        form: What validates it: a model's ``model_validate``, or a type adapter's ``validate_python``.
        request: As it came.

    Raises:
        RequestError: It is not in that form.
    """
    try:
        return form(dict(request))
    except (ValueError, VLLMClientError) as error:  # the latter is what vLLM's own validators raise
        raise RequestError(f"vLLM refuses the request: {error}") from error
