"""What a user sets once, read once: flags over environment over a file.

The file is ``config.toml`` in the user's configuration directory (``VLLM_AGENT_CONFIG`` names another), with
the fields of :class:`Settings` as keys; the environment has the same names in capitals behind
``VLLM_AGENT_``. Nothing below the edge reads either: values travel from here as arguments.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.errors import ConfigurationError

PREFIX = "VLLM_AGENT_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
PROTOCOLS = ("auto", "native", "text")
SECRETS = ("api_key", "encryption_key")
"""Fields whose values are shown to nobody."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a command needs to know; ``None`` leaves a choice to the part that makes it."""

    model: str | None = None
    """Hub id or directory of a model; ``None`` for the embedded one (or for what the server serves)."""

    base_url: str | None = None
    """Address of a running vLLM server, for example ``http://localhost:8000/v1``; no engine starts here."""

    api_key: str | None = field(default=None, repr=False)
    """The server's key. There is no flag for it: other users of a machine can read flags."""

    protocol: str = "auto"
    """How the model calls tools: ``auto``, ``native`` or ``text``."""

    temperature: float | None = None
    """0 is greedy; ``None`` for 0 with the embedded model and 0.7 with others."""

    max_tokens: int = 512
    """Tokens of one answer at most."""

    max_steps: int = 10
    """Model calls that may use tools, per question."""

    system: str | None = None
    """Stands before every conversation."""

    graph: str = "react"
    """The graph that answers."""

    tools: tuple[str, ...] | None = None
    """Names of the tools the model may call; ``None`` for all."""

    tools_config: Path | None = None
    """TOML file of more tools: modules, MCP servers, toolkits, policies; ``None`` for the installed alone."""

    documents: Path | None = None
    """Folder of Markdown and text files that the graph ``retrieval`` answers from."""

    embeddings: str | None = None
    """Model by which documents are found by their meaning too: a hub id, a directory, or ``default`` for
    all-MiniLM-L6-v2; ``None`` to find them by their words alone."""

    reranker: str | None = None
    """Model that puts found documents in order, named as for :attr:`embeddings`; ``None`` for the order in
    which they were found."""

    database: str | None = None
    """Path or URL of the conversations; ``None`` for a file in :attr:`home`."""

    encryption_key: str | None = field(default=None, repr=False)
    """16, 24 or 32 characters: encrypts what is said, which then cannot be searched. It has no flag."""

    home: Path | None = None
    """Directory of conversations and input history; ``None`` for the user's data directory."""

    warm_minutes: float = 15.0
    """``run``, ``chat`` and ``resume`` leave a server running for the next command, which stops when nobody
    has asked it anything for so long. 0 runs the model in the command's own process."""

    metrics_port: int | None = None
    """Port of the loopback address where Prometheus finds metrics; ``None`` for none."""

    otlp_traces_endpoint: str | None = None
    """Where an OpenTelemetry collector takes spans, for example ``http://localhost:4318/v1/traces``; ``None``
    for no traces."""

    vllm: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Engine arguments as ``vllm.EngineArgs`` names them, for example ``{"max_model_len": 4096}``."""

    @property
    def directory(self) -> Path:
        """:attr:`home`, or the user's data directory."""
        if self.home is not None:
            return self.home
        import platformdirs

        return Path(platformdirs.user_data_dir("vllm-agent"))


def load_settings(
    flags: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the file and the environment and put ``flags`` over them.

    Args:
        flags: By field name; ``None`` values count as not given.
        environment: In the place of the process's own.

    Raises:
        ConfigurationError: A file cannot be read, or a key or value in it or the environment is wrong.
    """
    environment = os.environ if environment is None else environment
    values = {**_from_file(environment), **_from_environment(environment)}
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    if "vllm" in given:
        given["vllm"] = {**values.get("vllm", {}), **given["vllm"]}
    values |= {name: _checked(name, value, f"the option {_flag(name)}") for name, value in given.items()}
    return Settings(**values)


def _flag(name: str) -> str:
    return "--vllm-arg" if name == "vllm" else f"--{name.replace('_', '-')}"


def config_file(environment: Mapping[str, str]) -> Path:
    """Where the file is, whether it exists or not."""
    if chosen := environment.get(CONFIG_VARIABLE):
        return Path(os.path.expanduser(chosen))  # as it stands where there is no such user
    import platformdirs

    return Path(platformdirs.user_config_dir("vllm-agent")) / "config.toml"


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    path = config_file(environment)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if environment.get(CONFIG_VARIABLE):
            raise ConfigurationError(f"{CONFIG_VARIABLE} names {path}, which does not exist") from error
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from error
    for name in document:
        if name not in _CHECKS:
            close = difflib.get_close_matches(name, _CHECKS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(_CHECKS)}"
            raise ConfigurationError(f"{path}: unknown key {name!r}; {hint}")
    return {name: _checked(name, value, f"{path}: {name}") for name, value in document.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for name in _CHECKS:
        variable = PREFIX + name.upper()
        # Set to nothing counts as not set: that is how a shell takes a variable back for one command.
        if (text := environment.get(variable)) and name != "vllm":
            values[name] = _checked(name, text, variable)
    return values


def _checked(name: str, value: Any, origin: str) -> Any:
    try:
        return _CHECKS[name](value)
    except (TypeError, ValueError) as error:
        shown = "…" if name in SECRETS else repr(value)
        raise ConfigurationError(f"{origin} = {shown}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value


def _path(value: Any) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError as error:  # "~name", and nobody is called so
        raise ValueError("there is no such user") from error


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _positive(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else 0
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError("must be a whole number, 1 or more")
    return number


def _port(value: Any) -> int:
    if (number := _positive(value)) > 65_535:
        raise ValueError("must be a port, 1 to 65535")
    return number


def _number(value: Any) -> float:
    """``value`` as a number; -1 if it is none."""
    try:
        return float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        return -1.0


def _temperature(value: Any) -> float:
    if not 0 <= (number := _number(value)) <= 2:
        raise ValueError("must be a number from 0 to 2")
    return number


def _minutes(value: Any) -> float:
    if not 0 <= (number := _number(value)) < float("inf"):
        raise ValueError("must be a number of minutes, 0 or more")
    return number


def _names(value: Any) -> tuple[str, ...]:
    """A list of names, or one text with commas between them; an empty list means none at all."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be a list of names")
    return tuple(part.strip() for part in parts if part.strip())


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of engine arguments")
    return MappingProxyType(dict(value))


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "model": _text,
    "base_url": _text,
    "api_key": _text,
    "protocol": _one_of(*PROTOCOLS),
    "temperature": _temperature,
    "max_tokens": _positive,
    "max_steps": _positive,
    "system": _text,
    "graph": _text,
    "tools": _names,
    "tools_config": _path,
    "documents": _path,
    "embeddings": _text,
    "reranker": _text,
    "database": _text,
    "encryption_key": _text,
    "home": _path,
    "warm_minutes": _minutes,
    "metrics_port": _port,
    "otlp_traces_endpoint": _text,
    "vllm": _table,
}
assert set(_CHECKS) == {each.name for each in fields(Settings)}
