"""What the packages export is written down here; a change of it is a change for users."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import errors

ROOT = Path(__file__).parents[2]

EXPORTS = {
    "agent": [
        "ChatVLLM",
        "ConversationStore",
        "VLLM",
        "VLLMClassifier",
        "VLLMEmbeddings",
        "VLLMReranker",
        "VLLMRewardModel",
        "VLLMTokenClassifier",
        "create_vllm_chat_model",
        "list_models",
        "open_checkpointer",
        "plan_fit",
    ],
    "agent.engines": [
        "Engine",
        "EngineConfig",
        "EngineInfo",
        "LocalEngine",
        "PoolingEngine",
        "RemoteEngine",
        "Reply",
        "ScriptedEngine",
        "open_engine",
        "release_engine",
    ],
    "graphs": [
        "Approve",
        "Edit",
        "GRAPHS",
        "Reject",
        "Respond",
        "Worker",
        "build_approval_graph",
        "build_plan_execute_graph",
        "build_react_graph",
        "build_retrieval_graph",
        "build_supervisor_graph",
        "decide",
        "draw_mermaid",
        "draw_png",
        "draw_svg",
        "find_graph",
        "waiting_calls",
    ],
}


@pytest.mark.parametrize(("package", "names"), EXPORTS.items())
def test_exports_are_as_written_here(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == names
    for name in names:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", ["agent", "tools", "graphs"])
def test_exports_are_sorted_documented_and_listed(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", ["agent", "tools", "graphs"])
def test_unknown_names_are_attribute_errors(package: str) -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        importlib.import_module(package).nonsense  # noqa: B018


def error_classes() -> Iterator[type[BaseException]]:
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, BaseException):
            yield value


def test_all_errors_are_in_one_tree_and_in_its_drawing() -> None:
    drawing = errors.__doc__ or ""
    for error in error_classes():
        assert issubclass(error, errors.AgentError)
        assert error.__name__ in drawing


def test_the_top_level_is_fixed() -> None:
    allowed = {
        *("pyproject.toml", "README.md", "agent", "tools", "graphs", "tests", "notebooks", "langgraph.json"),
        *("Makefile", "benchmarks", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    }
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - allowed - {"dist", "build"} == set()
