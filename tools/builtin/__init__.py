"""The built-in tools, as a plugin like any other: the package metadata names this module.

The calculator, the clock and the file tools are always there. A tool that reaches further (a database, the
web, a shell, Python, a folder of documents) is there when it is configured, with the options of its builder.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool

from tools.arguments import closest
from tools.builtin.calculator import calculator
from tools.builtin.clock import current_time
from tools.builtin.documents import build_document_tools
from tools.builtin.files import build_file_tools
from tools.builtin.python import build_python_tools
from tools.builtin.shell import build_shell_tools
from tools.builtin.sql import build_sql_tools
from tools.builtin.web import build_web_tools
from tools.errors import ToolRegistrationError

__all__ = [
    "build_document_tools",
    "build_file_tools",
    "build_python_tools",
    "build_shell_tools",
    "build_sql_tools",
    "build_tools",
    "build_web_tools",
    "calculator",
    "current_time",
]

_PATHS = ("root", "folder", "directory", "readable")
_SQLITE = "sqlite:///"
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),  # the text "false" would count as true
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}
"""What may be given for an option, by the type of its default."""
Options = Mapping[str, Any]


def build_tools(
    *,
    files_root: str | os.PathLike[str] | None = None,
    files: Options | None = None,
    sql: Options | None = None,
    web: Options | None = None,
    shell: Options | None = None,
    python: Options | None = None,
    documents: Options | None = None,
    base: str | os.PathLike[str] | None = None,
) -> list[BaseTool]:
    """The calculator, the clock, the file tools, and those that options are given for.

    Args:
        files_root: The directory that the file tools work in; short for ``files={"root": …}``. Left out: the
            environment variable ``VLLM_AGENT_FILES``, else the directory ``files`` in the user's data
            directory, which holds nothing but what tools wrote or the user put there. It is made when
            something is first written.
        files: Options of :func:`build_file_tools`.
        sql: Options of :func:`build_sql_tools`; no database without them.
        web: Options of :func:`build_web_tools`, which may be none (``{}``); no web without it.
        shell: Options of :func:`build_shell_tools`; no shell without them.
        python: Options of :func:`build_python_tools`, which may be none; no Python without it.
        documents: Options of :func:`build_document_tools`; no search without them.
        base: The directory that relative paths in options start from; the working directory if left out.

    Raises:
        ToolRegistrationError: An option is unknown or wrong.
    """
    tools = [calculator, current_time]
    if hasattr(os, "O_NOFOLLOW"):  # without it the file tools could be led out of their directory by a link
        tools += _built(
            "files", build_file_tools, {"root": files_root or _default_root(), **(files or {})}, base
        )
    for name, build, options in (
        ("sql", build_sql_tools, sql),
        ("web", build_web_tools, web),
        ("shell", build_shell_tools, shell),
        ("python", build_python_tools, python),
        ("documents", build_document_tools, documents),
    ):
        if options is not None:
            tools += _built(name, build, options, base)
    return tools


def _built(
    name: str, build: Callable[..., list[BaseTool]], options: Options, base: str | os.PathLike[str] | None
) -> list[BaseTool]:
    if not isinstance(options, Mapping):
        raise ToolRegistrationError(f"builtin.{name} must be a table of options, not {options!r}")
    known = inspect.signature(build).parameters
    for key, value in options.items():
        if key not in known:
            raise ToolRegistrationError(
                f"builtin.{name}: unknown option {key!r}.{closest(key, known)} Known: {', '.join(known)}"
            )
        kinds, words = _KINDS.get(type(known[key].default), ((type(value),), ""))
        if type(value) not in kinds:
            raise ToolRegistrationError(f"builtin.{name}: {key}={value!r} must be {words}")
    try:
        return build(**{key: _from_base(key, value, base) for key, value in options.items()})
    except (ToolRegistrationError, TypeError, ValueError) as error:
        raise ToolRegistrationError(f"builtin.{name}: {error}") from error


def _from_base(key: str, value: Any, base: str | os.PathLike[str] | None) -> Any:
    """A path that an option names, from the directory that it is relative to."""
    if base is None:
        return value
    if key in _PATHS and isinstance(value, list | tuple):
        return [_from_base(key, each, base) for each in value]
    if key in _PATHS and isinstance(value, str):
        return os.fspath(Path(base).absolute() / os.path.expanduser(value))
    if key == "url" and isinstance(value, str) and value.startswith(_SQLITE):
        return _SQLITE + os.fspath(Path(base).absolute() / os.path.expanduser(value.removeprefix(_SQLITE)))
    return value


def _default_root() -> Path:
    named = os.environ.get("VLLM_AGENT_FILES")
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_data_path("vllm-agent") / "files"
