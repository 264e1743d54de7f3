"""What vLLM says when it cannot start, in one line and as one of our errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.errors import AgentError, DoesNotFitError, EngineStartError, ModelNotFoundError

_LONGEST = 600  # characters of a message
_GATED = ("gated repo", "Access to model")


def start_error(arguments: Mapping[str, Any], error: Exception) -> AgentError:
    """Return what a start that failed with ``error`` is for our callers.

    Args:
        arguments: The engine arguments, the model included.
        error: vLLM's own.
    """
    from agent.catalogue.preflight import memory_advice

    model = arguments["model"]
    text = plain_message(error)
    if advice := memory_advice(str(error), arguments):
        return DoesNotFitError(f"vLLM ran out of memory: {advice} ({text})")
    if (refused := refused_by_hub(model, text)) is not None:
        return refused
    return EngineStartError(f"vLLM could not start with model {model!r}: {text}")


def refused_by_hub(model: str, text: str) -> ModelNotFoundError | None:
    """Return the error of a model that the hub gives out on conditions; None where ``text`` says another."""
    if not any(sign in text for sign in _GATED):
        return None
    return ModelNotFoundError(
        f"the model {model!r} is given out on conditions: accept them on its page, and log in with "
        f"`hf auth login` ({text})"
    )


def plain_message(error: Exception) -> str:
    """Take the frame that pydantic puts around a message off, and cut lists that fill pages."""
    text = str(error) or type(error).__name__
    text = re.sub(r"^\d+ validation errors? for \w+\n\s*Value error, ", "", text)
    text = re.sub(r" \[type=\w+, input_value=.*", "", text, flags=re.DOTALL)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
