"""Imports run one way, and heavy libraries are imported in one place each."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "tools", "graphs")

# The edge of `agent`: it composes everything, and nothing imports it.
EDGE = (
    "agent.app",
    "agent.batch",
    "agent.cli",
    "agent.doctor",
    "agent.documents",  # a setting becomes a retriever of `tools`
    "agent.settings",
    "agent.studio",
    "agent.ui",
    "agent.__main__",
)


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


ALL = list(modules())


def test_there_are_modules_to_check() -> None:
    assert {name.partition(".")[0] for name, _ in ALL} == set(PACKAGES)
    assert len(ALL) > 40


@pytest.mark.parametrize(("name", "path"), ALL, ids=[name for name, _ in ALL])
def test_imports_run_one_way(name: str, path: Path) -> None:
    for target in imports(path):
        if not within(target, *PACKAGES):
            continue
        if within(name, "tools"):
            assert within(target, "tools"), f"tools imports {target}"
        elif within(name, "graphs"):
            assert within(target, "graphs", "tools"), f"graphs imports {target}"
        elif not within(name, *EDGE):
            assert within(target, "agent"), f"the core of agent imports {target}"
            assert not within(target, *EDGE), f"the core imports the edge: {target}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not in a function, and not for types either: what two modules need belongs into a third one."""
    names = {name for name, _ in ALL}
    graph = {}
    for name, path in ALL:
        found = imports(path) & names - {name}
        # `from package import module` needs the module, which is here as well.
        graph[name] = {each for each in found if not any(within(other, each) for other in found - {each})}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_protocols_are_data_that_everything_may_read() -> None:
    for name, path in ALL:
        if within(name, "agent.protocols"):
            foreign = [target for target in imports(path) if within(target, *PACKAGES)]
            assert all(within(target, "agent.protocols", "agent.errors") for target in foreign), name


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        # The plugin is a file that vLLM's server loads, and is imported by nothing of ours.
        ("vllm", ("agent.engines.inprocess", "agent.formats.serving.plugin")),
        ("torch", ("agent.engines.inprocess",)),
        ("transformers", ()),
        ("langchain_community", ("agent.chat.text",)),
        ("httpx", ("agent.engines.remote", "tools.builtin.web")),
        (
            "sqlalchemy",
            ("agent.persistence", "agent.doctor.database", "tools.builtin.sql"),
        ),  # there a type alone
        ("ray", ("agent.batch.ray_runner",)),
        ("cloudpickle", ("tools.isolation",)),
        ("click", ("agent.cli",)),
        ("nicegui", ("agent.ui",)),
        ("rich", ("agent.cli", "agent.catalogue.progress")),
        ("langgraph", ("graphs", "agent.persistence", "agent.telemetry", "agent.app")),
        ("opentelemetry", ("agent.telemetry",)),
        ("prometheus_client", ("agent.telemetry",)),
    ],
)
def test_libraries_have_one_home(library: str, homes: tuple[str, ...]) -> None:
    users = [name for name, path in ALL if any(within(target, library) for target in imports(path))]
    assert [name for name in users if not within(name, *homes)] == []


# What single tools are made with. It is imported when such a tool is asked for, and not before.
LATE = {
    "tools.isolation": {"cloudpickle"},
    "tools.builtin.sql": {"sqlalchemy"},
    "tools.builtin.web": {"httpx", "bs4", "markdownify"},
    "tools.builtin.markdown": {"bs4", "markdownify"},
}


def test_tools_need_only_langchain_core() -> None:
    allowed = {
        *sys.stdlib_module_names,
        "langchain_core",
        "pydantic",
        "jsonschema",
        "platformdirs",
        "referencing",
        "tools",
    }
    for name, path in ALL:
        if within(name, "tools") and not within(name, "tools.sources"):
            foreign = {target.partition(".")[0] for target in imports(path)} - allowed - LATE.get(name, set())
            assert not foreign, f"{name} imports {foreign}"


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = (
        "import sys, agent, agent.engines, tools, graphs\n"
        "heavy = {'torch', 'vllm', 'transformers', 'sqlalchemy', 'langchain_core.tools', 'rich'}\n"
        "heavy |= {'langchain_community'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_rooms_are_small() -> None:
    long = {name: n for name, path in ALL if (n := len(path.read_text().splitlines())) > 400}
    assert not long, f"split these modules: {long}"
