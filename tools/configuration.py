"""One TOML file that says where tools come from and how they may be run.

::

    modules = ["my_tools.py", "package.tools"]   # files are relative to this file
    exclude = ["plugin"]                         # installed plugins to leave out

    [mcp.search]                                 # tools are named search_…
    command = "search-server"                    # or url = "http://localhost:9000/mcp"

    [toolkits."langchain_community.agent_toolkits:FileManagementToolkit"]
    root_dir = "notes"

    [policies.calculator]
    timeout = 5

    [builtin.sql]                                # a built-in tool that is there only when configured;
    url = "sqlite:///shop.db"                    # options as in tools.builtin, paths relative to this file

    [options.plugin]                             # for build_tools() of a plugin or module
    currency = "EUR"
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import logging
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.arguments import closest
from tools.errors import ToolError, ToolRegistrationError
from tools.policy import ToolPolicy
from tools.registry import ToolRegistry
from tools.sources.entry_points import plugins
from tools.sources.mcp import McpServer

logger = logging.getLogger(__name__)

_KEYS = ("modules", "exclude", "builtin", "mcp", "toolkits", "policies", "options")
_BUILTIN = "builtin"


def load_registry(path: str | os.PathLike[str], *, servers: bool = True) -> ToolRegistry:
    """A registry of the built-in tools, the installed plugins, and what the file names.

    Args:
        path: The file.
        servers: Whether to start the MCP servers in it and ask them; without, their entries are only checked.

    Raises:
        ToolRegistrationError: The file is missing or wrong (the message has the key), or a source is.
    """
    path = Path(os.path.expanduser(path))
    document = _read(path)
    policies = {
        name: _at(f"{path}: policies.{name}", _policy, table)
        for name, table in _tables(document, "policies", path).items()
    }
    options = _tables(document, "options", path)
    _check_options(options, document, path)
    if builtin := _tables(document, _BUILTIN, path):
        options[_BUILTIN] = {**options.get(_BUILTIN, {}), **builtin, "base": path.parent}
    for module in _names(document, "modules", path):  # the registry knows a file by its whole path
        if _is_file(module) and module in options:
            options[_place(module, path)] = options.pop(module)
    registry = ToolRegistry(policies=policies, options=options)
    try:
        _fill(registry, document, path, servers=servers)
        _check_policies(registry, policies, document, path)
    except BaseException:
        registry.close()  # servers that were started before the error
        raise
    return registry


def _fill(registry: ToolRegistry, document: dict[str, Any], path: Path, *, servers: bool) -> None:
    exclude = _names(document, "exclude", path)
    if _BUILTIN in exclude and _BUILTIN in document:
        raise ToolRegistrationError(
            f"{path}: the built-in tools are excluded, and there are options for them"
        )
    _at(f"{path}: exclude", lambda: registry.add_plugins(exclude=exclude))
    for problem in registry.problems:  # of others it is a warning; these have been asked for by name
        if problem.source.startswith(f"plugin {_BUILTIN!r}") and _BUILTIN in document:
            raise ToolRegistrationError(f"{path}: {problem.error}")
    for module in _names(document, "modules", path):
        name = _place(module, path) if _is_file(module) else module
        _at(f"{path}: modules", registry.add_module, name)
    for name, options in _tables(document, "toolkits", path).items():
        _at(
            f"{path}: toolkits.{name}",
            lambda name=name, options=options: registry.add_toolkit(name, **options),
        )
    for name, options in _tables(document, "mcp", path).items():
        server = _at(f"{path}: mcp.{name}", _server, name, options)
        if servers:
            _at(f"{path}: mcp.{name}", registry.add_mcp, server)


def _check_options(options: Mapping[str, Any], document: Mapping[str, Any], path: Path) -> None:
    known = [_BUILTIN, *(point.name for point in plugins()), *_names(document, "modules", path)]
    for name in options:
        if name not in known:
            raise ToolRegistrationError(
                f"{path}: options.{name}: no plugin is called so, and no module is listed so."
                f"{closest(name, known)}"
            )


def _check_policies(
    registry: ToolRegistry, names: Iterable[str], document: Mapping[str, Any], path: Path
) -> None:
    """Refuse a policy that no tool has: with a name misspelt, nobody would be asked for approval."""
    servers = tuple(f"{name}_" for name in _tables(document, "mcp", path))
    for name in names:
        if name in registry.names:
            continue
        problem = f"{path}: policies.{name}: there is no tool {name!r}.{closest(name, registry.names)}"
        # It may be one of those that are not there now.
        if not (name.startswith(servers) or document.get("exclude") or registry.problems):
            raise ToolRegistrationError(problem)
        logger.warning("%s", problem)


def _is_file(module: str) -> bool:
    return module.endswith(".py") or os.sep in module


def _place(module: str, path: Path) -> str:
    return os.fspath(path.parent.absolute() / os.path.expanduser(module))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ToolRegistrationError(f"the tools file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:  # its message ends with the line and the column
        raise ToolRegistrationError(f"{path} is no TOML: {error}") from error
    for key in document:
        if key not in _KEYS:
            raise ToolRegistrationError(
                f"{path}: unknown key {key!r}.{closest(key, _KEYS)} Known: {', '.join(_KEYS)}"
            )
    return document


def _names(document: Mapping[str, Any], key: str, path: Path) -> list[str]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ToolRegistrationError(f"{path}: {key} must be a list of names, not {value!r}")
    return value


def _tables(document: Mapping[str, Any], key: str, path: Path) -> dict[str, dict[str, Any]]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ToolRegistrationError(f"{path}: {key} must be a table, not {value!r}")
    for name, table in value.items():
        if not isinstance(table, dict):
            raise ToolRegistrationError(f"{path}: {key}.{name} must be a table, not {table!r}")
    return value


def _at(origin: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do ``work``, with the place in the file before what goes wrong."""
    try:
        return work(*arguments)
    except (ToolError, TypeError, ValueError) as error:
        raise ToolRegistrationError(f"{origin}: {error}") from error


def _check_keys(kind: type, table: Mapping[str, Any]) -> None:
    known = [each.name for each in dataclasses.fields(kind) if each.name != "name"]
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {key!r}.{closest(key, known)} Known: {', '.join(known)}")


def _server(name: str, table: Mapping[str, Any]) -> McpServer:
    _check_keys(McpServer, table)
    for key in ("command", "url", "cwd"):
        if not isinstance(table.get(key, ""), str):
            raise ValueError(f"{key} must be a text, not {table[key]!r}")
    args = table.get("args", [])
    if not isinstance(args, list) or not all(isinstance(item, str) for item in args):
        raise ValueError(f"args must be a list of texts, not {args!r}")
    for key in ("env", "headers"):
        value = table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise ValueError(f"{key} must be a table of texts")  # the value may be a secret: not shown
    return McpServer(name=name, **{**table, "args": tuple(args)})


def _policy(table: Mapping[str, Any]) -> ToolPolicy:
    _check_keys(ToolPolicy, table)
    errors = table.get("retry_on", [])
    if not isinstance(errors, list):
        raise ValueError(f"retry_on must be a list of names, not {errors!r}")
    return ToolPolicy(**{**table, "retry_on": tuple(_error_class(name) for name in errors)})


def _error_class(name: Any) -> type[Exception]:
    """The exception of that name: a built-in one, or ``package.module.Name``."""
    found: Any = None
    if isinstance(name, str):
        module, dot, attribute = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module) if dot else builtins, attribute, None)
        except ImportError as error:
            raise ValueError(f"retry_on: {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Exception)):
        raise ValueError(
            f"retry_on: {name!r} is no exception; give one such as 'ConnectionError' or 'httpx.ConnectError'"
        )
    return found
