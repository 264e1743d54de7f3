"""From a model's arguments to its engine, for chat and text models alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from agent.engines.base import Engine, StageCallback
from agent.engines.config import EngineConfig
from agent.engines.local import open_engine
from agent.errors import ConfigurationError

REMOTE_FIELDS = ("api_key", "timeout", "max_retries")
"""Arguments that go with a server's address only."""


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Which engine a model's arguments ask for: a given one, a server, or vLLM in this process."""

    model: str | None
    """Hub id, local directory or served name; None for the embedded model, or the server's only one."""

    local: Mapping[str, Any]
    """Arguments of :meth:`EngineConfig.create` that the model names itself."""

    vllm_kwargs: Mapping[str, Any]
    """Any other engine argument."""

    given: Collection[str]
    """Names of the arguments that the caller gave."""

    base_url: str | None = None
    """A server's address."""

    remote: Mapping[str, Any] = field(default_factory=dict)
    """The arguments named in :data:`REMOTE_FIELDS`."""

    engine: Engine | None = None
    """An engine that exists already."""

    embedded: Callable[[], Path] | None = None
    """Returns the directory of the model for those who name none; None for the one that chats."""

    on_stage: StageCallback | None = None
    """Called with each stage of the start."""

    def opener(self) -> Callable[[], Engine]:
        """Return what opens the engine.

        Raises:
            ConfigurationError: Arguments contradict each other.
            ModelNotFoundError: The model is neither a directory nor a possible hub id.
        """
        if (given := self.engine) is not None:
            for name, other in (("model", self.model), ("base_url", self.base_url)):
                if other is not None:
                    msg = f"give either {name}= or engine=, not both ({name}={other!r})"
                    raise ConfigurationError(msg)
            return lambda: given
        if self.base_url is not None:
            return self._remote_opener(self.base_url)
        if alone := [name for name in REMOTE_FIELDS if name in self.given]:
            msg = f"{', '.join(alone)} goes to a server: give base_url= too"
            raise ConfigurationError(msg)
        if twice := sorted(self.local.keys() & self.vllm_kwargs.keys()):
            msg = f"give {twice[0]}= directly, not in vllm_kwargs (value {self.vllm_kwargs[twice[0]]!r})"
            raise ConfigurationError(msg)
        if "model" in self.vllm_kwargs:
            msg = f"give model= directly, not in vllm_kwargs (value {self.vllm_kwargs['model']!r})"
            raise ConfigurationError(msg)
        if self.model is None:
            return lambda: open_engine(self._embedded(), on_stage=self.on_stage)
        config = EngineConfig.create(self.model, **self.local, **self.vllm_kwargs)
        return lambda: open_engine(config, on_stage=self.on_stage)

    def _embedded(self) -> EngineConfig:
        from agent.catalogue.embedded import embedded_model

        directory = (self.embedded or embedded_model)()
        # Its weights are exact in float32 alone, and it answers the same on every machine.
        dtype = {"dtype": "float32"} if self.local["dtype"] == "auto" else {}
        return EngineConfig.create(directory, **{**self.local, **dtype}, **self.vllm_kwargs)

    def _remote_opener(self, base_url: str) -> Callable[[], Engine]:
        if useless := [name for name in (*self.local, "vllm_kwargs") if name in self.given]:
            msg = (
                f"{', '.join(useless)} is decided by the server when it starts; leave it out together with "
                f"base_url={base_url!r}, and give it to the server"
            )
            raise ConfigurationError(msg)

        from agent.engines.remote import RemoteEngine

        engine = RemoteEngine(base_url, model=self.model, **self.remote)
        return lambda: engine


def ends(*given: Any) -> list[str] | None:
    """Return all stop texts in their order, each once; a text that stands alone counts as one of them.

    What is no list of texts is left in it, for the check of the arguments to name.
    """
    found: list[Any] = []
    for stop in given:
        found += stop if isinstance(stop, list | tuple | set) else [stop] if stop is not None else []
    return list(dict.fromkeys(found)) or None


def given_names(model: BaseModel) -> list[str]:
    """Return the arguments that differ from their defaults.

    What was passed says less: LangChain builds configured copies of a model from all of its fields.
    """
    fields = type(model).model_fields
    return [
        name
        for name in sorted(model.model_fields_set & fields.keys())
        if getattr(model, name) not in (None, fields[name].get_default(call_default_factory=True))
    ]


def key_from_environment() -> SecretStr | None:
    """Return the API key that the environment variable ``VLLM_API_KEY`` holds."""
    key = os.environ.get("VLLM_API_KEY")
    return SecretStr(key) if key else None


def remote_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments named in :data:`REMOTE_FIELDS`, with the environment's key where there is none."""
    given = {name: getattr(model, name) for name in REMOTE_FIELDS}
    return given if given["api_key"] is not None else {**given, "api_key": key_from_environment()}


def refuse_unknown(kind: type[BaseModel], arguments: Mapping[str, Any]) -> None:
    """Refuse an argument that a model does not have, which may be one of vLLM's.

    Raises:
        ConfigurationError: There is one.
    """
    if unknown := sorted(arguments.keys() - kind.model_fields.keys()):
        msg = (
            f"{kind.__name__} has no argument {unknown[0]!r} (value {arguments[unknown[0]]!r}); an argument "
            f"of vLLM's engine goes into vllm_kwargs={{{unknown[0]!r}: …}}"
        )
        raise ConfigurationError(msg)


def explain(error: ValidationError, what: str = "ChatVLLM cannot be built") -> str:
    """Say in one line which arguments are wrong, with their values."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "arguments"
        secret = name == "api_key" or isinstance(problem.get("input"), SecretStr)
        if name == "arguments":  # a rule about several of them, which names them itself
            lines.append(problem["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{name}={'***' if secret else repr(problem.get('input'))}: {problem['msg']}")
    return f"{what}: " + "; ".join(lines)
