"""Tool calls wait for a person; decisions reach exactly the calls they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graph_doubles import JournalSaver, ScriptedModel, calls, malformed
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agent.persistence import open_checkpointer
from graphs import (
    Approve,
    Edit,
    Reject,
    Respond,
    build_approval_graph,
    build_react_graph,
    decide,
    waiting_calls,
)
from graphs.decisions import DecisionError, is_approved, read_decision
from tools import ToolPolicy, tool

SETTINGS: Any = {"configurable": {"thread_id": "t"}}


class Runs(list[tuple[str, Any]]):
    """Which tools ran, with what."""


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def some_tools(runs: Runs) -> list[Any]:
    @tool
    def pay(amount: int) -> str:
        """Pay an amount."""
        runs.append(("pay", amount))
        return f"paid {amount}"

    @tool(policy=ToolPolicy(approval=True))
    def launch(target: str) -> str:
        """Launch at a target."""
        runs.append(("launch", target))
        return f"launched at {target}"

    @tool
    def look() -> str:
        """Look around."""
        runs.append(("look", None))
        return "seen"

    return [pay, launch, look]


FOUR = calls(
    ("pay", {"amount": 1}),
    ("pay", {"amount": 2}),
    ("launch", {"target": "moon"}),
    ("look", {}),
    text="I will",
)


def graph_of(script: list[Any], tools: list[Any], *, saver: Any = None, **options: Any) -> Any:
    model = ScriptedModel(script=script)
    return build_approval_graph(model=model, tools=tools, checkpointer=saver or InMemorySaver(), **options)


def results(state: Any) -> dict[str, tuple[str, str]]:
    return {m.tool_call_id: (m.text, m.status) for m in state["messages"] if isinstance(m, ToolMessage)}


def test_each_call_gets_the_decision_that_was_made_for_it(some_tools, runs, run):
    graph = graph_of([FOUR, "done"], some_tools)
    state = run(graph, "go")
    [request] = [i.value for i in state["__interrupt__"]]
    assert [(c["id"], c["name"], c["args"]) for c in request["calls"]] == [
        ("c0", "pay", {"amount": 1}),
        ("c1", "pay", {"amount": 2}),
        ("c2", "launch", {"target": "moon"}),
        ("c3", "look", {}),
    ]
    assert request["calls"][0]["description"] == "Pay an amount."
    assert request["calls"][0]["parameters"]["required"] == ["amount"]
    assert runs == []
    # In another order than the calls, as answers arrive.
    answer = decide(
        {"c3": Respond("a wall"), "c2": Approve(), "c1": Reject("too much"), "c0": Edit({"amount": 7})}
    )
    state = run(graph, answer)
    found = results(state)
    assert found["c0"] == ("paid 7", "success")
    assert "did not allow" in found["c1"][0]
    assert "too much" in found["c1"][0]
    assert found["c1"][1] == "error"
    assert found["c2"] == ("launched at moon", "success")
    assert found["c3"] == ("a wall", "success")
    assert sorted(runs, key=str) == [("launch", "moon"), ("pay", 7)]
    assert state["messages"][-1].text == "done"


def test_the_conversation_shows_what_ran(some_tools, run):
    graph = graph_of([calls(("pay", {"amount": 1}), text="I will"), "done"], some_tools)
    run(graph, "go")
    state = run(graph, decide({"c0": Edit({"amount": 7})}))
    answer = state["messages"][1]
    assert answer.text == "I will"
    assert [(c["id"], c["args"]) for c in answer.tool_calls] == [("c0", {"amount": 7})]
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]


def test_plain_data_does_as_well_as_records(some_tools, runs):
    graph = graph_of([FOUR, "done"], some_tools)
    graph.invoke({"messages": "go"}, SETTINGS)
    state = graph.invoke(
        Command(
            resume={
                "c0": "approve",
                "c1": {"type": "edit", "args": {"amount": 9}},
                "c2": {"type": "reject"},
                "c3": {"type": "respond", "text": "dark"},
            }
        ),
        SETTINGS,
    )
    assert {key: text for key, (text, _) in results(state).items() if key != "c2"} == {
        "c0": "paid 1",
        "c1": "paid 9",
        "c3": "dark",
    }
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("approve", "no mapping from tool-call id"),
        (["approve"], "no mapping from tool-call id"),
        ({"c9": "approve"}, "'c9' is not waiting"),
        ({"c0": "maybe"}, "is no decision"),
        ({"c0": {"type": "edit"}}, "is no decision"),
        ({"c0": {"type": "edit", "args": {"amount": "many"}}}, "amount"),
    ],
)
def test_a_wrong_decision_runs_nothing_and_is_asked_for_again(some_tools, runs, run, wrong, problem):
    graph = graph_of([calls(("pay", {"amount": 1})), "done"], some_tools)
    run(graph, "go")
    state = run(graph, Command(resume=wrong))
    [request] = [i.value for i in state["__interrupt__"]]
    assert problem in request["problems"][0]
    assert runs == []
    state = run(graph, decide({"c0": Approve()}))
    assert results(state) == {"c0": ("paid 1", "success")}
    assert runs == [("pay", 1)]


def test_nothing_runs_before_all_is_decided_and_what_was_decided_is_kept(some_tools, runs):
    graph = graph_of([FOUR, "done"], some_tools)
    graph.invoke({"messages": "go"}, SETTINGS)
    state = graph.invoke(decide({"c1": Reject(), "c0": Approve()}), SETTINGS)
    assert [call["id"] for call in waiting_calls(state)] == ["c2", "c3"]
    assert [call["id"] for call in waiting_calls(graph.get_state(SETTINGS))] == ["c2", "c3"]
    assert runs == []
    state = graph.invoke(decide({"c3": Approve(), "c2": Approve()}, to=state), SETTINGS)
    assert "__interrupt__" not in state
    assert sorted(runs, key=str) == [("launch", "moon"), ("look", None), ("pay", 1)]


def test_a_decision_for_a_call_that_does_not_wait_is_refused_before_it_is_sent(some_tools):
    graph = graph_of([FOUR, "done"], some_tools)
    state = graph.invoke({"messages": "go"}, SETTINGS)
    with pytest.raises(DecisionError, match="for c9; what waits: c0, c1, c2, c3"):
        decide({"c9": Approve()}, to=state)


@pytest.mark.parametrize(
    ("asks", "asked"),
    [
        ("all", ["c0", "c1", "c2", "c3"]),
        ("policy", ["c2"]),
        (["look"], ["c2", "c3"]),
        (lambda call: call["args"].get("amount") == 2, ["c1", "c2"]),
    ],
)
def test_who_is_asked_about_what(some_tools, asks, asked):
    graph = graph_of([FOUR, "done"], some_tools, asks=asks)
    state = graph.invoke({"messages": "go"}, SETTINGS)
    assert [call["id"] for call in waiting_calls(state)] == asked
    state = graph.invoke(decide(dict.fromkeys(asked, Approve())), SETTINGS)
    assert len(results(state)) == 4
    assert {status for _, status in results(state).values()} == {"success"}


@pytest.mark.parametrize("asks", [["lok"], "pay"])
def test_asks_must_name_tools(some_tools, asks):
    with pytest.raises(ValueError, match="launch, look, pay"):
        graph_of(["x"], some_tools, asks=asks)


def test_nobody_is_asked_about_a_call_that_cannot_run(some_tools, runs, run):
    script = [calls(("pay", {"amount": "many"}), ("buy", {})), malformed("pay"), "done"]
    state = run(graph_of(script, some_tools), "go")
    assert "__interrupt__" not in state
    assert {status for _, status in results(state).values()} == {"error"}
    assert runs == []
    assert state["messages"][-1].text == "done"


def test_if_nothing_may_run_the_model_goes_on_at_once(some_tools, runs, run):
    graph = graph_of([FOUR, "as you wish"], some_tools)
    run(graph, "go")
    state = run(graph, decide(dict.fromkeys(("c0", "c1", "c2", "c3"), Reject())))
    assert state["messages"][-1].text == "as you wish"
    assert runs == []


def test_ids_like_those_of_interrupts_are_decided_too(some_tools, runs):
    hexadecimal = "0123456789abcdef" * 2
    graph = graph_of([calls(("pay", {"amount": 1}), ids=[hexadecimal]), "done"], some_tools)
    state = graph.invoke({"messages": "go"}, SETTINGS)
    [call] = waiting_calls(state)
    state = graph.invoke(Command(resume={call["id"]: "approve"}), SETTINGS)
    assert state["messages"][-1].text == "done"
    assert runs == [("pay", 1)]


def test_an_approval_is_for_the_arguments_that_were_seen(some_tools):
    graph = graph_of([calls(("launch", {"target": "moon"})), "done"], some_tools)
    graph.invoke({"messages": "go"}, SETTINGS)
    graph.invoke(decide({"c0": Approve()}), SETTINGS, interrupt_before=["tools"])
    answer = graph.get_state(SETTINGS).values["messages"][-1]
    [call] = answer.tool_calls
    assert is_approved(answer, call)
    assert not is_approved(answer, {**call, "args": {"target": "earth"}})
    assert not is_approved(answer, {**call, "name": "pay"})
    assert not is_approved(AIMessage("x"), call)


def test_without_the_gate_such_a_tool_is_refused(some_tools, runs, run):
    graph = build_react_graph(
        model=ScriptedModel(script=[calls(("launch", {"target": "moon"})), "done"]),
        tools=some_tools,
        checkpointer=InMemorySaver(),
    )
    assert "approval" in results(run(graph, "go"))["c0"][0]
    assert runs == []


def test_a_new_question_in_the_place_of_a_decision_leaves_the_call_unrun(some_tools, runs, run):
    saver = JournalSaver()
    graph = graph_of([calls(("pay", {"amount": 1})), "hello"], some_tools, saver=saver)
    run(graph, "go")
    state = run(graph, "never mind")
    assert results(state)["c0"] == (
        "Error: the run was stopped before 'pay' began, so it was not run.",
        "error",
    )
    assert state["messages"][-1].text == "hello"
    assert runs == []


def test_the_decision_may_come_from_another_process(some_tools, runs, tmp_path: Path):
    file = tmp_path / "threads.db"
    with open_checkpointer(file) as saver:
        graph = graph_of([FOUR], some_tools, saver=saver)
        graph.invoke({"messages": "go"}, SETTINGS)
    with open_checkpointer(file) as saver:
        graph = graph_of(["done"], some_tools, saver=saver)
        ids = [call["id"] for call in waiting_calls(graph.get_state(SETTINGS))]
        assert ids == ["c0", "c1", "c2", "c3"]
        graph.invoke(decide({"c0": Approve(), "c1": Edit({"amount": 4})}), SETTINGS)
    with open_checkpointer(file) as saver:
        graph = graph_of(["done"], some_tools, saver=saver)
        state = graph.invoke(decide({"c2": Reject(), "c3": Approve()}), SETTINGS)
    assert sorted(runs, key=str) == [("look", None), ("pay", 1), ("pay", 4)]
    assert state["messages"][-1].text == "done"


class Died(BaseException):
    """Stands for a process that dies."""


def test_what_was_approved_never_runs_twice(some_tools, runs):
    saver = JournalSaver()
    finish = saver.journal.afinish

    async def finish_and_die(**about: Any) -> None:
        await finish(**about)
        raise Died

    graph = graph_of([calls(("launch", {"target": "moon"})), "done"], some_tools, saver=saver)
    graph.invoke({"messages": "go"}, SETTINGS)
    saver.journal.afinish = finish_and_die
    with pytest.raises(Died):
        graph.invoke(decide({"c0": Approve()}), SETTINGS, durability="sync")
    saver.journal.afinish = finish
    state = graph.invoke(None, SETTINGS)
    assert results(state) == {"c0": ("launched at moon", "success")}
    assert runs == [("launch", "moon")]


def died_in_a_tool(script: list[Any], tools: list[Any]) -> tuple[Any, JournalSaver]:
    """A graph whose process died when the first tool call had been approved and begun."""
    saver = JournalSaver()
    begin = saver.journal.abegin

    async def begin_and_die(**about: Any) -> Any:
        await begin(**about)
        raise Died

    graph = graph_of(script, tools, saver=saver)
    graph.invoke({"messages": "go"}, SETTINGS)
    saver.journal.abegin = begin_and_die
    with pytest.raises(Died):
        graph.invoke(decide({"c0": Approve()}), SETTINGS, durability="sync")
    saver.journal.abegin = begin
    return graph, saver


@pytest.mark.parametrize(
    ("decision", "result", "ran"),
    [
        (Approve(), ("launched at moon", "success"), [("launch", "moon")]),
        (Respond("it hit"), ("it hit", "success"), []),
        (Reject("too late"), ("decided not to run it again: too late", "error"), []),
    ],
)
def test_a_person_decides_about_a_call_of_unknown_outcome(some_tools, runs, run, decision, result, ran):
    graph, _ = died_in_a_tool([calls(("launch", {"target": "moon"})), "done"], some_tools)
    for _ in range(2):  # looking at it changes nothing
        [request] = [i.value for i in run(graph, None)["__interrupt__"]]
        assert request["decisions"] == ["approve", "reject", "respond"]
        [call] = request["calls"]
        assert (call["id"], call["args"]) == ("c0", {"target": "moon"})
        assert "may have taken effect or not" in call["warning"]
    [request] = [i.value for i in run(graph, decide({"c0": Edit({"target": "mars"})}))["__interrupt__"]]
    assert "cannot be changed" in request["problems"][0]
    assert runs == []
    state = run(graph, decide({"c0": decision}))
    text, status = results(state)["c0"]
    assert (result[0] in text, status) == (True, result[1])
    assert runs == ran
    assert state["messages"][-1].text == "done"


def test_what_was_run_again_and_finished_is_known_to_a_new_question(some_tools, runs):
    graph, saver = died_in_a_tool([calls(("launch", {"target": "moon"})), "hello"], some_tools)
    graph.invoke(None, SETTINGS)
    finish = saver.journal.afinish

    async def finish_and_die(**about: Any) -> None:
        await finish(**about)
        if "content" in about["result"]:
            raise Died

    saver.journal.afinish = finish_and_die
    with pytest.raises(Died):
        graph.invoke(decide({"c0": Approve()}), SETTINGS, durability="sync")
    saver.journal.afinish = finish
    state = graph.invoke({"messages": "and?"}, SETTINGS)
    assert results(state) == {"c0": ("launched at moon", "success")}
    assert runs == [("launch", "moon")]


def test_a_tool_that_is_run_again_may_ask_questions_of_its_own(run):
    @tool
    def order(what: str) -> str:
        """Order something."""
        return f"{interrupt('how many?')} {what}"

    graph, _ = died_in_a_tool([calls(("order", {"what": "eggs"})), "done"], [order])
    assert [call["id"] for call in waiting_calls(run(graph, None))] == ["c0"]
    state = run(graph, decide({"c0": Approve()}))
    assert [i.value for i in state["__interrupt__"]] == ["how many?"]
    assert results(run(graph, Command(resume="ten")))["c0"] == ("ten eggs", "success")


def test_decisions_are_told_as_events_and_only_once(some_tools):
    graph = graph_of([FOUR, "done"], some_tools)
    list(graph.stream({"messages": "go"}, SETTINGS, stream_mode="custom"))
    events = [*graph.stream(decide({"c0": Approve()}), SETTINGS, stream_mode="custom")]
    assert events == []
    rest = dict.fromkeys(("c1", "c2", "c3"), Reject())
    events = [*graph.stream(decide(rest), SETTINGS, stream_mode="custom")]
    decided = [(e["id"], e["decision"]) for e in events if e["type"] == "call_decided"]
    assert decided == [("c0", "approve"), ("c1", "reject"), ("c2", "reject"), ("c3", "reject")]


DECISIONS = st.sampled_from([Approve(), Edit({"amount": 99}), Reject("no"), Respond("words")])


@given(st.lists(DECISIONS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_however_the_answers_arrive_they_reach_their_calls(decisions, random):
    ran = []

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return f"paid {amount}"

    asked = calls(*(("pay", {"amount": i}) for i in range(len(decisions))))
    graph = graph_of([asked, "done"], [pay])
    graph.invoke({"messages": "go"}, SETTINGS)
    order = list(range(len(decisions)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    for part in (order[:cut], order[cut:]):
        if part:
            state = graph.invoke(decide({f"c{i}": decisions[i] for i in part}), SETTINGS)
    found = results(state)
    for i, decision in enumerate(decisions):
        expected = {"approve": f"paid {i}", "edit": "paid 99", "respond": "words"}.get(decision.type)
        assert expected is None or found[f"c{i}"][0] == expected
    assert len(ran) == sum(d.type in ("approve", "edit") for d in decisions)


@pytest.mark.parametrize("value", [None, 1, "yes", {}, {"type": "respond"}, {"type": "edit", "args": [1]}])
def test_what_is_no_decision_is_refused_with_those_there_are(value):
    with pytest.raises(DecisionError, match="respond"):
        read_decision(value)
