import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.tools import StructuredTool

from tools import (
    ToolPolicy,
    ToolRegistrationError,
    ToolRegistry,
    UnknownToolError,
    default_registry,
    policy_of,
    tool,
    with_policy,
)


@tool
def alpha(text: str) -> str:
    """Say alpha.

    Args:
        text: Any text.
    """
    return text


@tool
def beta() -> str:
    """Say beta."""
    return "beta"


def gamma(number: int) -> int:
    """Say gamma."""
    return number


def named(name: str, description: str = "D.") -> StructuredTool:
    def body() -> str:
        return name

    return StructuredTool.from_function(body, name=name, description=description)


PLUGIN = """
from tools import tool

@tool
def {name}() -> str:
    "From a plugin."
    return "{name}"
"""


def test_order_is_by_name_whatever_the_order_of_registration():
    one, other = ToolRegistry([beta, gamma, alpha]), ToolRegistry([alpha, beta, gamma])
    assert [item.name for item in one] == [item.name for item in other] == ["alpha", "beta", "gamma"]
    assert [item.name for item in one.select(["gamma", "alpha", "gamma"])] == ["alpha", "gamma"]
    assert [item.name for item in one.select("beta")] == ["beta"]


def test_functions_become_tools():
    registry = ToolRegistry([gamma])
    assert registry.get("gamma").invoke({"number": 3}) == 3
    assert "gamma" in registry
    assert len(registry) == 1


def test_an_unknown_name_names_close_ones():
    registry = ToolRegistry([alpha, beta])
    with pytest.raises(UnknownToolError, match=r"'alpa'. Did you mean alpha\? Tools: alpha, beta"):
        registry.get("alpa")
    with pytest.raises(UnknownToolError, match="zzz"):
        registry.select(["alpha", "zzz"])
    with pytest.raises(UnknownToolError, match="empty"):
        ToolRegistry().get("alpha")


def test_a_clash_names_both_sources_and_adds_nothing():
    registry = ToolRegistry([alpha])
    with pytest.raises(
        ToolRegistrationError, match=r"'alpha': one from \S*test_registry.alpha, one from there"
    ):
        registry.add(beta, named("alpha"), source="there")
    assert registry.names == ("alpha",)
    assert registry.get("alpha") is alpha


def test_a_clash_within_one_source():
    with pytest.raises(ToolRegistrationError, match="two tools are called 'x'"):
        ToolRegistry([named("x"), named("x")])


def test_the_same_tool_twice_is_no_clash():
    registry = ToolRegistry([alpha, alpha])
    registry.add(with_policy(alpha, ToolPolicy(timeout=1)))
    assert len(registry) == 1


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (named("has space"), "'has space'"),
        (named("x" * 65), "1 to 64"),
        (named("empty", description=" "), "no description"),
        (
            StructuredTool.from_function(
                lambda **given: given, name="schema", description="D.", args_schema={"type": "nonsense"}
            ),
            "'schema'",
        ),
    ],
)
def test_what_would_fail_in_a_conversation_is_refused_at_once(broken, words):
    with pytest.raises(ToolRegistrationError, match=words):
        ToolRegistry([broken])


def test_policies_by_name_go_before_the_tools_own_also_for_later_ones():
    registry = ToolRegistry(policies={"alpha": ToolPolicy(approval=True)})
    registry.add(alpha)
    assert policy_of(registry.get("alpha")).approval
    assert not policy_of(alpha).approval


def test_descriptions_are_what_a_model_gets_and_plain_json():
    described = ToolRegistry([alpha]).describe("alpha")
    assert described.description == "Say alpha."
    assert described.parameters["properties"]["text"] == {"description": "Any text.", "type": "string"}
    assert described.source.endswith("test_registry.alpha")
    assert json.loads(json.dumps(described.to_dict()))["policy"]["timeout"] == 60


def test_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="mine"))
    registry = ToolRegistry()
    registry.add_module(str(file))
    registry.add_module(file)  # again, as a path: the same tools
    assert registry.names == ("mine",)
    assert registry.describe("mine").source == f"file {file}"


def test_two_files_of_one_name(tmp_path):
    registry = ToolRegistry()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(PLUGIN.format(name=folder))
        registry.add_module(tmp_path / folder / "mine.py")
    assert registry.names == ("a", "b")


def test_a_dotted_module_that_builds_its_tools_from_options(tmp_path, monkeypatch):
    (tmp_path / "builder_module.py").write_text(
        "from tools import tool\n"
        "def build_tools(*, name='default'):\n"
        "    return [tool(name, lambda text: text, description='D.')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = ToolRegistry(options={"builder_module": {"name": "chosen"}})
    registry.add_module("builder_module")
    assert registry.names == ("chosen",)
    with pytest.raises(ToolRegistrationError, match="unexpected keyword argument 'nme'"):
        ToolRegistry(options={"builder_module": {"nme": "x"}}).add_module("builder_module")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "has no tools"),
        ("import sys; sys.exit(1)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("def build_tools(): raise RuntimeError('no key')", "no key"),
        ("def build_tools(): return [1]", "offers 1"),
        ("def build_tools(): return None", "has no tools"),
    ],
)
def test_a_module_that_is_named_and_broken_raises_and_is_named(tmp_path, text, words):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(ToolRegistrationError, match=words) as caught:
        ToolRegistry().add_module(file)
    assert str(file) in str(caught.value)


def test_a_module_that_does_not_exist():
    with pytest.raises(ToolRegistrationError, match=r"no\.such"):
        ToolRegistry().add_module("no.such")
    with pytest.raises(ToolRegistrationError, match="no such file"):
        ToolRegistry().add_module("no/such.py")


def install(folder: Path, plugin: str, module: str, text: str) -> None:
    """Put an installed distribution with one entry point on the path."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{plugin}_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vllm_agent.tools]\n{plugin} = {module}\n")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_installed_plugins_and_a_broken_one_costs_only_its_own(packages, caplog):
    install(packages, "zgood", "zgood_module", PLUGIN.format(name="good"))
    install(packages, "abroken", "abroken_module", "raise OSError('not today')")
    registry = ToolRegistry()
    with caplog.at_level(logging.WARNING, logger="tools"):
        registry.add_plugins(exclude={"builtin"})
    assert registry.names == ("good",)
    assert registry.describe("good").source == "plugin 'zgood' of zgood-package 1.0 (zgood_module)"
    (problem,) = registry.problems
    assert "abroken" in problem.source
    assert "not today" in str(problem.error)
    assert "not today" in caplog.text


def test_plugins_that_clash_are_both_named_and_one_can_be_left_out(packages):
    install(packages, "first", "first_module", PLUGIN.format(name="same"))
    install(packages, "second", "second_module", PLUGIN.format(name="same"))
    with pytest.raises(ToolRegistrationError, match=r"'first' of first-package.*'second' of second-package"):
        ToolRegistry().add_plugins(exclude={"builtin"})
    registry = ToolRegistry()
    registry.add_plugins(exclude={"builtin", "second"})
    assert registry.names == ("same",)


def test_one_name_to_leave_out_is_no_list_of_its_parts():
    assert "calculator" in default_registry(exclude="builtin_copy").names


def test_options_reach_a_plugin(packages):
    install(
        packages,
        "shop",
        "shop_module",
        "from tools import tool\n"
        "def build_tools(*, currency):\n"
        "    def price(item: str) -> str:\n"
        "        'Tell a price.'\n"
        "        return currency\n"
        "    return tool(price)\n",
    )
    registry = ToolRegistry(options={"shop": {"currency": "EUR"}})
    registry.add_plugins(exclude={"builtin"})
    assert registry.get("price").invoke({"item": "a"}) == "EUR"
    without = ToolRegistry()
    without.add_plugins(exclude={"builtin"})
    assert "currency" in str(without.problems[0].error)


def test_the_builtin_tools_are_a_plugin_like_any_other(packages, tmp_path):
    info = packages / "fake_agent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-agent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vllm_agent.tools]\nbuiltin_copy = tools.builtin\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / "note.txt").write_text("hello")
    registry = default_registry(options={"builtin_copy": {"files_root": root}}, exclude={"builtin"})
    assert registry.names == (
        "calculator",
        "current_time",
        "list_files",
        "read_file",
        "search_files",
        "write_file",
    )
    assert registry.get("read_file").invoke({"path": "note.txt"}) == "hello"


def imported(program: str, *modules: str) -> list[str]:
    """Which of the modules a fresh interpreter has loaded after the program."""
    program += f"\nimport sys; print(*[name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_importing_the_package_imports_nothing_heavy():
    assert imported("import tools", "langchain_core", "pydantic", "jsonschema") == []
    everything = "import tools\nfor name in tools.__all__: getattr(tools, name)"
    assert imported(everything, "agent", "graphs", "langgraph", "vllm", "torch", "jsonschema") == []


def test_public_names_are_sorted_and_exist():
    import tools

    assert tools.__all__ == sorted(tools.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = tools.nothing_such
