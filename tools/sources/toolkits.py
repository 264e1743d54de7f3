"""LangChain toolkits (``langchain-community`` and others) as a source of tools.

A toolkit is named as ``"package.module:Class"``. Its library is not ours: it is imported when the toolkit is
asked for, and a missing one is named.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from langchain_core.tools import BaseTool

from tools.errors import ToolRegistrationError
from tools.sources.modules import collect


def tools_of_toolkit(path: str, options: Mapping[str, Any]) -> tuple[str, list[BaseTool]]:
    """The tools of a toolkit, and the words that name their source.

    Args:
        path: ``"package.module:Class"``; the class has ``get_tools()``, as LangChain's toolkits do.
        options: Keyword arguments of the class.

    Raises:
        ToolRegistrationError: It cannot be imported or built, or has no tools.
    """
    source = f"toolkit {path}"
    module, colon, name = path.partition(":")
    if not (module and colon and name.isidentifier()):
        raise ToolRegistrationError(f"{source} must be named as 'package.module:Class'")
    try:
        kind = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ToolRegistrationError(
            f"{source} needs the module {error.name!r}: install the package that has it"
        ) from error
    except (Exception, SystemExit) as error:  # foreign code: whatever it does while it is imported
        raise ToolRegistrationError(f"{source} cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        found = kind(**options).get_tools()
    except (Exception, SystemExit) as error:
        raise ToolRegistrationError(
            f"{source} cannot build its tools: {type(error).__name__}: {error}"
        ) from error
    return source, collect(found, {}, source=source)
