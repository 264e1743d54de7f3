"""What survives interrupts, crashes and edits: finished calls are not run again, threads stay usable."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graph_doubles import JournalSaver, ScriptedModel, calls, malformed
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, interrupt

from agent.persistence import open_checkpointer
from graphs import build_react_graph
from tools import ToolPolicy, tool

SETTINGS: Any = {"configurable": {"thread_id": "t"}}


class Runs(list[str]):
    """Names of the tools that ran."""


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def some_tools(runs: Runs) -> list[Any]:
    @tool
    def pay(amount: int) -> str:
        """Pay."""
        runs.append("pay")
        return f"paid {amount}"

    @tool
    def ask(question: str) -> str:
        """Ask the user."""
        runs.append("ask")
        return f"the user says {interrupt(question)}"

    @tool
    async def ask_async(question: str) -> str:
        """Ask the user."""
        runs.append("ask_async")
        return f"the user says {interrupt(question)}"

    return [pay, ask, ask_async]


@pytest.fixture(params=["memory", "sqlite", "journal", "product"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "sqlite":
        with sqlite3.connect(tmp_path / "threads.db", check_same_thread=False) as connection:
            yield SqliteSaver(connection)
    elif request.param == "product":
        with open_checkpointer(f"sqlite:///{tmp_path / 'threads.db'}") as opened:
            yield opened
    else:
        yield InMemorySaver() if request.param == "memory" else JournalSaver()


def tool_texts(state: dict[str, Any]) -> list[str]:
    return [m.text for m in state["messages"] if isinstance(m, ToolMessage)]


@pytest.mark.parametrize("asking", ["ask", "ask_async"])
def test_an_interrupt_in_one_call_does_not_run_its_finished_neighbour_again(saver, some_tools, runs, asking):
    script = [calls(("pay", {"amount": 5}), (asking, {"question": "sure?"})), "done"]
    graph = build_react_graph(model=ScriptedModel(script=script), tools=some_tools, checkpointer=saver)
    state = graph.invoke({"messages": "go"}, SETTINGS)
    assert [i.value for i in state["__interrupt__"]] == ["sure?"]
    state = graph.invoke(Command(resume="yes"), SETTINGS)
    assert tool_texts(state) == ["paid 5", "the user says yes"]
    assert sorted(runs) == sorted(["pay", asking, asking])
    assert state["messages"][-1].text == "done"


async def test_the_same_asynchronously_on_the_official_saver(tmp_path, some_tools, runs):
    script = [
        calls(("pay", {"amount": 5}), ("ask_async", {"question": "?"}), ("ask", {"question": "!"})),
        "ok",
    ]
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        graph = build_react_graph(model=ScriptedModel(script=script), tools=some_tools, checkpointer=saver)
        state = await graph.ainvoke({"messages": "go"}, SETTINGS)
        answers = {i.id: i.value * 2 for i in state["__interrupt__"]}
        assert sorted(answers.values()) == ["!!", "??"]
        state = await graph.ainvoke(Command(resume=answers), SETTINGS)
    assert tool_texts(state) == ["paid 5", "the user says ??", "the user says !!"]
    assert runs.count("pay") == 1


# The journal


class Died(BaseException):
    """Stands for a process that dies."""


def journal_graph(saver: Any, script: list[Any], tools: list[Any]) -> Any:
    return build_react_graph(model=ScriptedModel(script=script), tools=tools, checkpointer=saver)


def test_a_call_that_finished_before_its_result_was_stored_is_not_run_again(some_tools, runs):
    saver = JournalSaver()
    finish = saver.journal.afinish

    async def finish_and_die(**about: Any) -> None:
        await finish(**about)
        raise Died

    saver.journal.afinish = finish_and_die
    graph = journal_graph(saver, [calls(("pay", {"amount": 5})), "done"], some_tools)
    with pytest.raises(Died):
        graph.invoke({"messages": "go"}, SETTINGS)
    saver.journal.afinish = finish
    events = []
    for event in graph.stream(None, SETTINGS, stream_mode="custom"):
        events.append(event)
    assert runs == ["pay"]
    assert tool_texts(graph.get_state(SETTINGS).values) == ["paid 5"]
    assert [(e["type"], e.get("replayed")) for e in events] == [
        ("tool_started", None),
        ("tool_finished", True),
    ]


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_call_of_unknown_outcome_runs_again_only_if_that_is_harmless(idempotent):
    attempts = []

    @tool(policy=ToolPolicy(idempotent=idempotent))
    def launch() -> str:
        """Launch."""
        attempts.append(1)
        return "launched"

    saver = JournalSaver()
    begin = saver.journal.abegin

    async def begin_and_die(**about: Any) -> Any:
        await begin(**about)
        raise Died

    saver.journal.abegin = begin_and_die
    graph = journal_graph(saver, [calls(("launch", {})), "done"], [launch])
    with pytest.raises(Died):
        graph.invoke({"messages": "go"}, SETTINGS)
    saver.journal.abegin = begin
    state = graph.invoke(None, SETTINGS)
    (entry,) = saver.journal.entries.values()
    if idempotent:
        assert tool_texts(state) == ["launched"]
        assert (entry.attempts, entry.status) == (2, "finished")
    else:
        assert attempts == []
        assert "outcome of 'launch' is unknown" in tool_texts(state)[0]
        assert "not run again" in tool_texts(state)[0]
    assert state["messages"][-1].text == "done"


def test_an_id_used_again_after_a_fork_gets_a_result_of_its_own(some_tools, runs):
    saver = JournalSaver()
    script = [calls(("pay", {"amount": 1})), "one", calls(("pay", {"amount": 2})), "two"]
    graph = journal_graph(saver, script, some_tools)
    first = graph.invoke({"messages": "go"}, SETTINGS)
    *_, start, _ = graph.get_state_history(SETTINGS)
    assert start.next == ("model",)
    second = graph.invoke(None, start.config)
    assert (tool_texts(first), tool_texts(second)) == (["paid 1"], ["paid 2"])
    assert second["messages"][1].tool_calls[0]["id"] == "c0"
    assert runs == ["pay", "pay"]


def test_edited_arguments_do_not_get_the_result_of_the_old_ones(some_tools, runs):
    saver = JournalSaver()
    graph = journal_graph(saver, [calls(("pay", {"amount": 1})), "done"], some_tools)
    graph.invoke({"messages": "go"}, SETTINGS)
    before = next(s for s in graph.get_state_history(SETTINGS) if s.next == ("tools",))
    answer = before.values["messages"][-1]
    edited = answer.model_copy(update={"tool_calls": [{**answer.tool_calls[0], "args": {"amount": 9}}]})
    fork = graph.update_state(before.config, {"messages": [edited]}, as_node="model")
    assert tool_texts(graph.invoke(None, fork)) == ["paid 9"]
    assert runs == ["pay", "pay"]


def test_journalled_results_keep_their_status_and_what_json_can_hold():
    @tool(response_format="content_and_artifact")
    def chart() -> Any:
        """Draw."""
        return "drawn", {"points": [1, 2]}

    saver = JournalSaver()
    graph = journal_graph(saver, [calls(("chart", {}), ("missing", {})), "done"], [chart])
    graph.invoke({"messages": "go"}, SETTINGS)
    (entry,) = saver.journal.entries.values()
    assert entry.result == {"content": "drawn", "status": "success", "artifact": {"points": [1, 2]}}


# Killed processes


def child(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    root = here.parents[2]
    return subprocess.run(
        [sys.executable, str(here / "crash_child.py"), str(directory), *flags],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{here}", "PATH": "/usr/bin:/bin"},
        check=False,
    )


def runs_of(directory: Path, name: str) -> int:
    return (directory / "runs.txt").read_text().split().count(name)


def test_kill_9_inside_a_tool_then_resume_in_a_new_process(tmp_path):
    first = child(tmp_path, "journal")
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = child(tmp_path, "journal", "resume")
    assert second.returncode == 0, second.stderr
    messages = json.loads(second.stdout)
    assert [kind for kind, _ in messages] == ["human", "ai", "tool", "tool", "ai"]
    assert messages[2][1] == "paid 5, receipt 1"
    assert "unknown" in messages[3][1]
    assert messages[-1][1] == "all done"
    assert (runs_of(tmp_path, "pay"), runs_of(tmp_path, "kill_me")) == (1, 1)


def test_kill_9_inside_a_tool_that_may_be_repeated(tmp_path):
    assert child(tmp_path, "journal", "harmless").returncode == -signal.SIGKILL
    second = child(tmp_path, "journal", "resume")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)[3][1] == "kill_me_harmlessly ran again"
    assert (runs_of(tmp_path, "pay"), runs_of(tmp_path, "kill_me_harmlessly")) == (1, 2)


def asked_again(directory: Path, *flags: str) -> dict[str, Any]:
    """What a new process says that resumes where a person may be asked."""
    done = child(directory, "journal", "person", "resume", *flags)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_kill_9_inside_a_tool_and_a_person_lets_it_run_again_each_time_anew(tmp_path):
    assert child(tmp_path, "journal", "person").returncode == -signal.SIGKILL
    state = asked_again(tmp_path)
    [[call_id, warning]] = state["waiting"]
    assert call_id == "c1"
    assert "a process stopped while 'kill_me' was running" in warning
    assert (runs_of(tmp_path, "pay"), runs_of(tmp_path, "kill_me")) == (1, 1)
    again = child(tmp_path, "journal", "person", "resume", "twice", json.dumps({"c1": "approve"}))
    assert again.returncode == -signal.SIGKILL, again.stderr
    assert [call_id for call_id, _ in asked_again(tmp_path)["waiting"]] == ["c1#2"]
    assert [call_id for call_id, _ in asked_again(tmp_path, '{"c1": "approve"}')["waiting"]] == ["c1#2"]
    assert runs_of(tmp_path, "kill_me") == 2
    state = asked_again(tmp_path, json.dumps({"c1#2": "approve"}))
    assert state["messages"][3][1] == "kill_me ran again"
    assert (runs_of(tmp_path, "pay"), runs_of(tmp_path, "kill_me")) == (1, 3)


def test_kill_9_then_a_new_question_instead_of_a_resume(tmp_path):
    assert child(tmp_path, "journal").returncode == -signal.SIGKILL
    second = child(tmp_path, "journal", "resume", "ask")
    assert second.returncode == 0, second.stderr
    messages = json.loads(second.stdout)
    assert [kind for kind, _ in messages] == ["human", "ai", "tool", "tool", "human", "ai"]
    assert messages[2][1] == "paid 5, receipt 1", "known from the journal"
    assert "stopped before 'kill_me' gave a result" in messages[3][1]
    assert runs_of(tmp_path, "pay") == 1


def test_kill_9_without_a_journal_keeps_what_was_stored(tmp_path):
    assert child(tmp_path).returncode == -signal.SIGKILL
    second = child(tmp_path, "resume")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)[2:4] == [["tool", "paid 5, receipt 1"], ["tool", "kill_me ran again"]]
    assert runs_of(tmp_path, "pay") == 1


# Repair


def dangling() -> list[Any]:
    return [
        HumanMessage("go", id="h1"),
        AIMessage(
            "",
            id="a1",
            tool_calls=[
                {"name": "pay", "args": {"amount": 1}, "id": "x"},
                {"name": "pay", "args": {"amount": 2}, "id": "y"},
            ],
        ),
        ToolMessage("paid 1", tool_call_id="x", id="t1"),
    ]


def test_calls_left_open_get_results_beside_their_answer_before_the_model_is_asked(run, some_tools, runs):
    model = ScriptedModel(script=["I see"])
    graph = build_react_graph(model=model, tools=some_tools, checkpointer=InMemorySaver())
    state = run(graph, [*dangling(), HumanMessage("and now?", id="h2")])
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "tool", "human", "ai"]
    assert state["messages"][3].tool_call_id == "y"
    assert state["messages"][3].status == "error"
    assert [m.id for m in state["messages"][:3]] + [state["messages"][4].id] == ["h1", "a1", "t1", "h2"]
    assert model.requests[0] == state["messages"][:-1]
    assert runs == []


def test_malformed_calls_without_results_are_repaired_too(run, some_tools):
    model = ScriptedModel(script=["I see"])
    graph = build_react_graph(model=model, tools=some_tools, checkpointer=InMemorySaver())
    state = run(graph, [HumanMessage("go"), malformed(), HumanMessage("and now?")])
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "human", "ai"]


def test_a_healthy_thread_is_not_rewritten(run, some_tools):
    graph = build_react_graph(
        model=ScriptedModel(script=[calls(("pay", {"amount": 1})), "ok"]),
        tools=some_tools,
        checkpointer=InMemorySaver(),
    )
    writes = [
        update
        for chunk in graph.stream({"messages": "go"}, SETTINGS, stream_mode="updates")
        for update in chunk.values()
    ]
    assert not any(isinstance(m, RemoveMessage) for update in writes for m in update["messages"])
    assert [len(update["messages"]) for update in writes] == [1, 1, 1]


def test_results_whose_call_was_deleted_are_not_sent(run, some_tools):
    model = ScriptedModel(script=["ok"])
    graph = build_react_graph(model=model, tools=some_tools, checkpointer=InMemorySaver())
    run(graph, [HumanMessage("go"), ToolMessage("lost", tool_call_id="nobody"), HumanMessage("well?")])
    assert [m.type for m in model.requests[0]] == ["human", "human"]


def test_a_tool_that_is_gone_when_the_thread_goes_on_is_an_error_for_the_model(some_tools, runs):
    saver = InMemorySaver()
    script = [calls(("pay", {"amount": 5}), ("ask", {"question": "sure?"})), "done"]
    graph = build_react_graph(model=ScriptedModel(script=script), tools=some_tools, checkpointer=saver)
    graph.invoke({"messages": "go"}, SETTINGS)
    pay = some_tools[0]
    smaller = build_react_graph(model=ScriptedModel(script=["done"]), tools=[pay], checkpointer=saver)
    state = smaller.invoke(Command(resume="yes"), SETTINGS)
    assert tool_texts(state)[0] == "paid 5"
    assert "no tool 'ask'" in tool_texts(state)[1]
