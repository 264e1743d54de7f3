"""The tools that a model could call."""

from __future__ import annotations

import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.doctor.findings import Finding, command, pip
from agent.doctor.installed import find
from agent.settings import Settings


def check_tools(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Collect the tools as a command would, and say which sources have none to give.

    Args:
        settings: What a command would have.
        deep: Start the MCP servers of the tools file too; else only their commands are looked for.
    """
    from tools.configuration import load_registry
    from tools.errors import ToolError
    from tools.registry import default_registry

    file = settings.tools_config
    try:
        registry = default_registry() if file is None else load_registry(file, servers=deep)
    except ToolError as error:
        mend = f"{_edit(file)}  # then: {command('tools', 'list')}" if file else command("tools", "list")
        yield Finding("tools.file" if file else "tools.registry", "problem", str(error), mend)
        return
    try:
        where = "installed packages" if file is None else f"installed packages and {file}"
        if registry.names:
            yield Finding("tools.registry", "ok", f"{', '.join(registry.names)} (from {where})")
        else:
            mend = pip("install", "--force-reinstall", "--no-deps", "vllm-agent")
            yield Finding("tools.registry", "warning", f"no tools from {where}", mend)
        for problem in registry.problems:
            mend = f"{command('tools', 'list')}  # reinstall or remove that package, or correct its entry"
            yield Finding("tools.source", "problem", f"no tools from {problem.source}: {problem.error}", mend)
        yield from _chosen(settings, registry.names, file, deep=deep)
    finally:
        registry.close()
    if file is not None:
        yield from _servers(file, deep=deep)


def _chosen(
    settings: Settings, names: tuple[str, ...], file: Path | None, *, deep: bool
) -> Iterator[Finding]:
    """The tools that the settings name."""
    prefixes = () if deep or file is None else tuple(f"{name}_" for name in _entries(file))
    for name in settings.tools or ():
        if name not in names and not (prefixes and name.startswith(prefixes)):
            what = f"the settings name the tool {name!r}, which there is not"
            yield Finding("tools.chosen", "problem", what, f"{command('tools', 'list')}  # shows the names")


def _entries(file: Path) -> dict[str, Any]:
    """The MCP servers in a file that was read before without an error."""
    servers = tomllib.loads(file.read_text(encoding="utf-8")).get("mcp", {})
    return dict(servers)


def _servers(file: Path, *, deep: bool) -> Iterator[Finding]:
    for name, entry in _entries(file.expanduser()).items():
        label = f"tools.mcp.{name}"
        if find("mcp") is None:
            what = f"the MCP server {name!r} needs the extra mcp, which is not installed"
            yield Finding(label, "problem", what, pip("install", "vllm-agent[mcp]"))
        elif (
            "command" in entry
            and shutil.which(entry["command"], path=(entry.get("env") or {}).get("PATH")) is None
        ):
            what = f"the command of the MCP server {name!r} is not there: {entry['command']}"
            yield Finding(label, "problem", what, f"install {entry['command']}, or {_edit(file)}")
        elif not deep:
            what = f"{entry.get('command') or entry.get('url')}; not started for this"
            yield Finding(label, "ok", what)


def _edit(file: Path) -> str:
    return f"${{EDITOR:-vi}} {shlex.quote(str(file))}"
