"""LangGraph Studio: its server, and the ``langgraph.json`` of this directory."""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.doctor.findings import Finding, pip
from agent.doctor.installed import find

FILE = "langgraph.json"


def check_studio(directory: Path) -> Iterator[Finding]:
    """Look for ``langgraph dev``, and at what it would be told.

    Args:
        directory: Where it would be called.
    """
    path = directory / FILE
    packages = [(name, find(name)) for name in ("langgraph-cli", "langgraph-api")]
    missing = [name for name, found in packages if found is None]
    if missing:
        what = f"`langgraph dev` cannot run: {' and '.join(missing)} not installed"
        yield Finding("studio.server", "not used", what, pip("install", "vllm-agent[studio]"))
    else:
        versions = ", ".join(f"{name} {found.version}" for name, found in packages if found is not None)
        yield Finding("studio.server", "ok", versions)
    if not path.is_file():
        yield Finding("studio.file", "not used", f"no {FILE} in {directory}")
        return
    problems = list(file_problems(path))
    mend = f"${{EDITOR:-vi}} {shlex.quote(str(path))}"
    for problem in problems:
        yield Finding("studio.file", "problem", f"{path}: {problem}", mend)
    if not problems:
        yield Finding(
            "studio.file", "ok", f"{path} names {len(_read(path)['graphs'])} graphs, which are all there"
        )


def file_problems(path: Path) -> Iterator[str]:
    """What is wrong with a ``langgraph.json``; its modules are read, not imported."""
    try:
        document = _read(path)
    except (OSError, ValueError) as error:
        yield f"it cannot be read: {error}"
        return
    graphs = document.get("graphs") if isinstance(document, dict) else None
    if not isinstance(graphs, dict) or not graphs:
        yield "it names no graphs"
        return
    places = {f"graphs.{name}": place for name, place in graphs.items()}
    if (checkpointer := document.get("checkpointer")) is not None:
        places["checkpointer"] = checkpointer
    for key, place in places.items():
        target = place.get("path") if isinstance(place, dict) else place
        if problem := _target_problem(path.parent, target):
            yield f"{key}: {problem}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _target_problem(directory: Path, target: object) -> str | None:
    """What is wrong with ``./file.py:name``; a module's dotted name is left to the server."""
    if not isinstance(target, str) or ":" not in target:
        return f"{target!r} is not of the form ./file.py:name"
    where, _, name = target.rpartition(":")
    if not where.endswith(".py"):
        return None
    try:
        tree = ast.parse((directory / where).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        return f"{where} cannot be read: {error}"
    return None if name in _defined(tree) else f"{where} defines no {name!r}"


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):  # also what stands within `if` and `try`
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names
