"""Which model an in-process engine runs, and how: a frozen record that is also the key for sharing."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import ConfigurationError, ModelNotFoundError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


@dataclass(frozen=True)
class EngineConfig:
    """One configuration of vLLM; equal configurations share one engine in a process."""

    model: str
    """A local directory or a hub id."""

    tool_parser: str | None = "auto"
    """vLLM's name of a tool parser; ``"auto"`` takes what the model's family needs, None uses none."""

    reasoning_parser: str | None = "auto"
    """vLLM's name of a reasoning parser; ``"auto"`` takes what the model's family needs, None uses none."""

    chat_template: str | None = None
    """A Jinja template, or a path to one, in the place of the model's own."""

    force: bool = False
    """Whether to start even a model that will not fit, by what is foretold."""

    arguments: str = field(default="{}")
    """All other engine arguments as canonical JSON, so that the record can be hashed."""

    @classmethod
    def create(
        cls,
        model: str | os.PathLike[str],
        *,
        tool_parser: str | None = "auto",
        reasoning_parser: str | None = "auto",
        chat_template: str | None = None,
        force: bool = False,
        **arguments: Any,
    ) -> EngineConfig:
        """Build a record from engine arguments as ``vllm.EngineArgs`` names them.

        Raises:
            ConfigurationError: An argument is not a JSON value.
            ModelNotFoundError: ``model`` is neither a model directory nor a possible hub id.
        """
        given = {name: value for name, value in sorted(arguments.items()) if value is not None}
        try:
            text = json.dumps(given)
        except TypeError as error:
            msg = f"engine arguments must be plain JSON values, got {given!r}: {error}"
            raise ConfigurationError(msg) from error
        except (ValueError, RecursionError) as error:
            msg = f"engine arguments must be plain JSON values, and one is nested too deeply ({error})"
            raise ConfigurationError(msg) from error
        return cls(
            _checked_model(os.fspath(model)), tool_parser, reasoning_parser, chat_template, force, text
        )

    def engine_arguments(self) -> dict[str, Any]:
        """Return the arguments for ``vllm.EngineArgs``, the model included."""
        return {"model": self.model, **json.loads(self.arguments)}


def closest_flags(name: str, known: Iterable[str]) -> str:
    """Say that vLLM's server has no such flag, and which it has.

    Args:
        name: As it was typed.
        known: All flags that there are.
    """
    wanted = "--" + name.lstrip("-").replace("_", "-")
    close = difflib.get_close_matches(wanted, sorted(set(known)), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"vLLM's server has no flag {name}{hint}"


def check_names(given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse argument names that the installed vLLM does not have.

    Raises:
        ConfigurationError: Names the argument and the closest known ones.
    """
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            msg = f"vLLM has no engine argument {name!r}{hint}"
            raise ConfigurationError(msg)


def configured_context(model: str) -> int | None:
    """Return ``max_position_embeddings`` of a local model directory; None where it cannot be read."""
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    text = (config.get("text_config") or config) if isinstance(config, dict) else None
    limit = text.get("max_position_embeddings") if isinstance(text, dict) else None
    return limit if isinstance(limit, int) and limit > 0 else None


def _checked_model(model: str) -> str:
    try:
        path = Path(model).expanduser()
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, of nobody, or with a NUL
        msg = f"no model can be called {model[:200]!r}: {getattr(error, 'strerror', None) or error}"
        raise ModelNotFoundError(msg) from error
    if path.is_dir():
        if not (path / "config.json").is_file() and not list(path.glob("*.gguf")):
            msg = f"{path} is no model directory: it has no config.json; give the directory that has one"
            raise ModelNotFoundError(msg)
        return str(path.resolve())
    looks_like_path = path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1
    if there and not looks_like_path:
        looks_like_path = True
    if looks_like_path or not _HUB_ID.fullmatch(model):
        msg = f"no model directory at {model!r} (and it is no hub id of the form owner/name)"
        raise ModelNotFoundError(msg)
    return model
