"""Tools from installed packages, through the entry-point group ``vllm_agent.tools``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from langchain_core.tools import BaseTool

from tools.errors import ToolRegistrationError
from tools.sources.modules import collect

GROUP = "vllm_agent.tools"


def plugins() -> Iterator[EntryPoint]:
    """The installed plugins, in the order of their names: metadata is found in no fixed order."""
    yield from sorted(set(entry_points(group=GROUP)), key=lambda point: (point.name, point.value))


def source_of(point: EntryPoint) -> str:
    """The words that name a plugin."""
    package = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    return f"plugin {point.name!r}{package} ({point.value})"


def tools_of_plugin(point: EntryPoint, options: Mapping[str, Any]) -> list[BaseTool]:
    """The tools of one plugin.

    Raises:
        ToolRegistrationError: It cannot be imported or has no tools.
    """
    source = source_of(point)
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:  # foreign code: whatever it does while it is imported
        raise ToolRegistrationError(f"{source} cannot be loaded: {type(error).__name__}: {error}") from error
    return collect(plugin, options, source=source)
