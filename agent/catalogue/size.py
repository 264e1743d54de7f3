"""How large a model is, as far as that can be told without its weights and without asking anybody."""

from __future__ import annotations

import re
from contextlib import suppress

from agent.catalogue.fetch import find_source
from agent.catalogue.models import find_model
from agent.catalogue.shapes import read_shape
from agent.catalogue.weights import real_parameters
from agent.errors import AgentError

# «Llama-3-8B», «Mixtral-8x7B», «SmolLM2-135M», as the names of models tell their size.
_IN_NAME = re.compile(r"(?<![a-zA-Z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bBmM])(?![a-zA-Z0-9])")


def parameters_of(*names: str | None) -> int | None:
    """Return how many parameters a model has; None where nobody knows.

    Args:
        names: What it is called: a directory, a hub id, or the path or the name under which a server has it.
            The first that tells counts; a directory's configuration tells more than any name.
    """
    known = [name for name in names if name]
    for ask in (_by_configuration, _by_catalogue, _by_name):
        for name in known:
            if (found := ask(name)) is not None:
                return found
    return None


def _by_configuration(name: str) -> int | None:
    with suppress(AgentError):
        source = find_source(name, offline=True)
        if source.entry is not None and source.entry.parameters is not None:
            return source.entry.parameters
        return real_parameters(read_shape(source.config))
    return None


def _by_catalogue(name: str) -> int | None:
    with suppress(AgentError):
        return find_model(_last_part(name)).parameters
    return None


def _by_name(name: str) -> int | None:
    if (found := _IN_NAME.search(_last_part(name))) is None:
        return None
    experts, number, unit = found.groups()
    return round(int(experts or 1) * float(number) * (1e9 if unit in "bB" else 1e6))


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
