"""Tools from a module, given by its dotted name or by the path of its file.

A plugin is a module. It has either ``build_tools(**options)``, which makes its tools from the options that
the user set for it, or tools as module-level names (those in ``__all__`` only, where it has one).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.tools import BaseTool

from tools.errors import ToolRegistrationError


def tools_of_module(name: str | os.PathLike[str], options: Mapping[str, Any]) -> tuple[str, list[BaseTool]]:
    """The tools of a module, and the words that name their source.

    Args:
        name: ``"package.module"`` or ``"path/to/file.py"``.
        options: Keyword arguments for the module's ``build_tools``.

    Raises:
        ToolRegistrationError: It cannot be imported, fails while it is, or has no tools.
    """
    text = os.fspath(name)
    is_file = not isinstance(name, str) or text.endswith(".py") or os.sep in text
    source = f"file {text}" if is_file else f"module {text}"
    try:
        module = _load_file(Path(text)) if is_file else importlib.import_module(text)
    except (Exception, SystemExit) as error:  # foreign code: whatever it does while it is imported
        raise ToolRegistrationError(f"{source} cannot be loaded: {type(error).__name__}: {error}") from error
    return source, collect(module, options, source=source)


def collect(plugin: object, options: Mapping[str, Any], *, source: str) -> list[BaseTool]:
    """The tools of what a plugin offers: a module, a function that makes tools, one tool or several.

    Raises:
        ToolRegistrationError: There are none, or the options do not fit.
    """
    build = getattr(plugin, "build_tools", None) if isinstance(plugin, ModuleType) else plugin
    if callable(build) and not isinstance(build, BaseTool):
        found = _build(build, options, source)
    elif options:
        raise ToolRegistrationError(f"{source} takes no options, but was given {', '.join(sorted(options))}")
    elif isinstance(plugin, ModuleType):
        names = getattr(plugin, "__all__", None) or vars(plugin)
        found = [
            tool for tool in (getattr(plugin, name, None) for name in names) if isinstance(tool, BaseTool)
        ]
    else:
        found = plugin
    tools = [found] if isinstance(found, BaseTool) else list(found) if isinstance(found, Iterable) else []
    wrong = next((tool for tool in tools if not isinstance(tool, BaseTool)), None)
    if not tools or wrong is not None:
        what = f"offers {wrong!r}" if tools else "has no tools"
        raise ToolRegistrationError(
            f"{source} {what}: decorate functions with @tool, or define build_tools()"
        )
    return tools


def _build(build: Any, options: Mapping[str, Any], source: str) -> Any:
    try:
        inspect.signature(build).bind(**options)
    except TypeError as error:
        raise ToolRegistrationError(f"{source} does not take these options: {error}") from error
    try:
        return build(**options)
    except ToolRegistrationError:
        raise
    except (Exception, SystemExit) as error:
        raise ToolRegistrationError(
            f"{source} cannot build its tools: {type(error).__name__}: {error}"
        ) from error


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    # Two files may have the same name, and neither may hide an installed module.
    name = f"tools_file_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where Pydantic and dataclasses look up the names in annotations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
