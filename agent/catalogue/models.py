"""The models that this package knows: ``models.toml`` as records, found by id, task, family or size."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Any

from agent.errors import ConfigurationError, ModelNotFoundError

TASKS = (
    *("generate", "multimodal", "transcription"),
    *("embedding", "reranker", "classification", "reward", "token-classification"),
)
POOLING_TASKS = TASKS[3:]


@dataclass(frozen=True)
class CatalogueModel:
    """One model of the catalogue."""

    id: str
    """Its hub id."""
    family: str
    task: str
    """What vLLM does with it: one of :data:`TASKS`."""
    architecture: str
    """The class that vLLM looks up."""
    licence: str
    """``"unknown"`` where nobody has looked."""
    config: Mapping[str, Any] = field(repr=False)
    """The keys of its ``config.json`` that decide its size."""
    checked: str = "no"
    """How sure geometry and parameters are."""
    parameters: int | None = None
    """Parameters that vLLM loads."""
    protocol: str | None = None
    """How it calls tools: ``"native"`` or ``"text"``; None for models that do not chat."""
    tool_parser: str | None = None
    """vLLM's name of the parser of its calls."""
    reasoning_parser: str | None = None
    """vLLM's name of the parser of its reasoning."""
    pooling: str | None = None
    """How an embedding is made of its states: CLS, MEAN or LAST."""
    query_prompt: str | None = None
    """What stands before a query."""
    document_prompt: str | None = None
    """What stands before a document."""
    score_template: str | None = None
    """How a query and a document are put together for a reranker."""
    hf_overrides: Mapping[str, Any] | None = None
    """Changes of the configuration with which vLLM runs it."""
    trust_remote_code: bool = False
    """Whether its own code has to be trusted."""
    problems: tuple[str, ...] = ()
    """What is known to go wrong."""

    @property
    def context(self) -> int:
        """Tokens that it is made for."""
        from agent.catalogue.shapes import read_shape

        return read_shape(self.full_config).limit

    @property
    def full_config(self) -> dict[str, Any]:
        """``config`` with the architecture, as a ``config.json`` has it."""
        return {"architectures": [self.architecture], **self.config}

    @property
    def pooling_task(self) -> bool:
        """Whether it answers with vectors or scores."""
        return self.task in POOLING_TASKS

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain data."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"context": self.context}


@cache
def catalogue() -> Mapping[str, CatalogueModel]:
    """All models by id."""
    data = tomllib.loads(files("agent.catalogue").joinpath("models.toml").read_text("utf-8"))
    found = {}
    for entry in data["models"]:
        entry["problems"] = tuple(entry.get("problems", ()))
        found[entry["id"]] = CatalogueModel(**entry)
    return found


def find_model(name: str) -> CatalogueModel:
    """The model of that id; the part behind the slash is enough, and case does not matter.

    Raises:
        ModelNotFoundError: There is none, or there are several; the message names the closest.
    """
    models = catalogue()
    if name in models:
        return models[name]
    wanted = name.lower()
    found = [m for key, m in models.items() if wanted in (key.lower(), key.lower().rpartition("/")[2])]
    if len(found) == 1:
        return found[0]
    close = difflib.get_close_matches(wanted, [key.lower() for key in models], n=3, cutoff=0.4)
    part = [key for key in models if wanted and wanted in key.lower()][:3]
    names = [m.id for m in found] or part or [key for key in models if key.lower() in close]
    hint = f"; did you mean {' or '.join(names)}?" if names else ""
    raise ModelNotFoundError(
        f"the catalogue has no model {name!r}{hint or '; `vllm-agent models list` shows them all'}"
    )


def list_models(
    *,
    task: str | None = None,
    family: str | None = None,
    min_parameters: float | None = None,
    max_parameters: float | None = None,
) -> list[CatalogueModel]:
    """Models of the catalogue.

    Args:
        task: Only those for a task: ``generate``, ``embedding``, ``reranker``, ``classification``,
        ``reward``,
            ``token-classification``, ``multimodal``, ``transcription``, or ``pooling`` for all that answer
            with vectors or scores.
        family: Only those whose family or id contains this text, in any case.
        min_parameters: At least so many parameters.
        max_parameters: At most so many.

    Raises:
        ConfigurationError: There is no such task.
    """
    if task is not None and task not in (*TASKS, "pooling"):
        raise ConfigurationError(f"task {task!r} is not one of {', '.join((*TASKS, 'pooling'))}")
    chosen = []
    for model in catalogue().values():
        size = model.parameters
        if (task == "pooling" and not model.pooling_task) or task not in (None, "pooling", model.task):
            continue
        if family and family.lower() not in f"{model.family} {model.id}".lower():
            continue
        if min_parameters is not None and (size is None or size < min_parameters):
            continue
        if max_parameters is not None and (size is None or size > max_parameters):
            continue
        chosen.append(model)
    return chosen
