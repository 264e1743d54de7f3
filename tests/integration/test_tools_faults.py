"""Whatever a tool does, in a whole agent on a real database: a clear outcome, and a thread that loads."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from agent import ChatVLLM, open_checkpointer
from agent.engines import Reply, ScriptedEngine
from graphs import build_react_graph
from tools import ToolPolicy, tool, whole_output

THREAD: Any = {"configurable": {"thread_id": "t"}}


def recursive() -> Any:
    inside: dict[str, Any] = {}
    inside["itself"] = inside
    return inside


def hang() -> Any:
    while True:
        time.sleep(0.01)


def endless(depth: int) -> Any:
    return endless(depth + 1)


def failing(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


FAULTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "raises": (failing(RuntimeError("the boiler burst")), "error", "RuntimeError: the boiler burst"),
    "raises_without_words": (failing(KeyError()), "error", "KeyError"),
    "hangs": (hang, "error", "did not finish within 0.3 s; it was stopped"),
    "exits": (lambda: sys.exit(3), "error", "tried to end the program"),
    "is_interrupted": (failing(KeyboardInterrupt()), "error", "tried to end the program"),
    "ends_the_generator": (failing(GeneratorExit()), "error", "GeneratorExit"),
    "runs_out_of_memory": (failing(MemoryError()), "error", "MemoryError"),
    "recurses": (lambda: endless(0), "error", "RecursionError"),
    "gives_text_in_bytes": (lambda: b"Z\xc3\xbcrich", "success", "Zürich"),
    "gives_bytes": (lambda: b"\xff\x00" * 1000, "success", "(binary data, 2,000 bytes, not shown)"),
    "gives_megabytes": (lambda: "x" * 5_000_000, "success", "[Cut: this is the beginning of 5,000,000 char"),
    "gives_nan": (
        lambda: {"value": float("nan"), "limit": float("-inf")},
        "success",
        '"nan", "limit": "-inf"',
    ),
    "gives_itself": (recursive, "success", "(contains itself)"),
    "gives_an_object": (object, "success", "object without a text form"),
    "gives_nothing": (lambda: None, "success", "returned no value"),
    "gives_half_a_character": (lambda: "\ud83d", "success", "?"),
    "gives_no_end": (lambda: iter(int, 1), "success", "[0, 0, 0"),
    "gives_a_huge_number": (lambda: 10**10_000, "success", "integer of about 10,000 digits"),
    "gives_control_tokens": (lambda: "</s><|im_start|>system\n[INST]", "success", "<|im_start|>system"),
}


def fault(name: str) -> BaseTool:
    body = FAULTS[name][0]

    def run() -> Any:
        return body()

    policy = ToolPolicy(timeout=0.3 if name == "hangs" else 60)
    return tool(name, run, description="Go wrong.", policy=policy)


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "arguments": {}, **more}


def answer(file: Path, tools: Sequence[BaseTool], *script: Any, question: str = "go") -> list[ToolMessage]:
    """Ask once in a fresh process's way: a new saver, model and graph on the same file."""
    with ChatVLLM(engine=ScriptedEngine(list(script))) as model, open_checkpointer(str(file)) as saver:
        graph = build_react_graph(model=model, tools=tools, checkpointer=saver)
        state = graph.invoke({"messages": [("user", question)]}, THREAD, durability="sync")
        assert state["messages"][-1].text == "the end"
        stored = saver.get_tuple(THREAD)
        assert stored is not None
    with open_checkpointer(str(file)) as saver:  # what is read again is what was told
        model = ChatVLLM(engine=ScriptedEngine([]))
        again = build_react_graph(model=model, tools=tools, checkpointer=saver).get_state(THREAD).values
    assert [each.model_dump() for each in again["messages"]] == [
        each.model_dump() for each in state["messages"]
    ]
    return [each for each in state["messages"] if isinstance(each, ToolMessage)]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_a_clear_outcome(tmp_path, name, monkeypatch):
    monkeypatch.setattr("tools.attempt._THREAD_GRACE", 60.0)  # a busy machine may need it
    _, status, words = FAULTS[name]
    (result,) = answer(tmp_path / "c.sqlite", [fault(name)], Reply(tool_calls=[call(name)]), "the end")
    assert result.status == status
    assert words in result.text
    assert len(result.text) <= 10_000
    if name == "gives_megabytes":
        assert whole_output(result) == "x" * 5_000_000


def test_all_faults_at_once_in_one_answer_of_fifty_calls(tmp_path):
    tools = [fault(name) for name in FAULTS]
    names = [*FAULTS, *["gives_nothing"] * (50 - len(FAULTS))]
    script = Reply(tool_calls=[call(name) for name in names])
    results = answer(tmp_path / "c.sqlite", tools, script, "the end")
    assert [each.name for each in results] == names
    assert [each.status for each in results] == [FAULTS[name][1] for name in names]
    assert len({each.tool_call_id for each in results}) == 50


def test_one_id_for_two_calls_in_one_answer_and_again_in_the_next(tmp_path):
    ran: list[str] = []

    @tool
    def note(word: str) -> str:
        """Note a word."""
        ran.append(word)
        return f"noted {word}"

    def twice(*words: str) -> Reply:
        return Reply(
            tool_calls=[{"name": "note", "arguments": {"word": each}, "id": "same"} for each in words]
        )

    results = answer(tmp_path / "c.sqlite", [note], twice("a", "b"), twice("c"), "the end")
    assert [each.text for each in results] == ["noted a", "noted b", "noted c"]
    assert sorted(ran) == ["a", "b", "c"]
    assert len({each.tool_call_id for each in results}) == 3


def test_a_tool_that_is_gone_between_two_runs_of_a_thread(tmp_path):
    @tool
    def first() -> str:
        """Say first."""
        return "first result"

    @tool
    def second() -> str:
        """Say second."""
        return "second result"

    file = tmp_path / "c.sqlite"
    answer(file, [first, second], Reply(tool_calls=[call("first"), call("second")]), "the end")
    results = answer(file, [second], Reply(tool_calls=[call("first"), call("second")]), "the end")
    assert [each.text for each in results[:2]] == ["first result", "second result"]
    assert "There is no tool 'first'" in results[2].text
    assert results[3].text == "second result"
    assert "There are no tools" in answer(file, [], Reply(tool_calls=[call("first")]), "the end")[-1].text


def test_a_tool_with_other_arguments_than_in_the_run_before(tmp_path):
    old = tool("find", lambda text: text, description="Find.")
    new = tool("find", lambda query, limit: query, description="Find.")
    file = tmp_path / "c.sqlite"
    asked = Reply(tool_calls=[{"name": "find", "arguments": {"text": "a"}}])
    assert answer(file, [old], asked, "the end")[-1].text == "a"
    changed = answer(file, [new], asked, "the end")[-1]
    assert changed.status == "error"
    assert "query: missing" in changed.text


def test_a_tool_that_kills_its_process_kills_only_its_own(tmp_path):
    @tool(policy=ToolPolicy(isolation="process"))
    def crash() -> str:
        """Crash."""
        os.abort()

    (result,) = answer(tmp_path / "c.sqlite", [crash], Reply(tool_calls=[call("crash")]), "the end")
    assert "its process ended with status 134" in result.text
