"""Supervisor and plan-and-execute: other graphs do the work, and nothing of it is lost or done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from agent import ChatVLLM, open_checkpointer
from agent.engines import Reply, ScriptedEngine
from graphs import (
    Approve,
    Reject,
    Worker,
    build_approval_graph,
    build_plan_execute_graph,
    build_react_graph,
    build_supervisor_graph,
    decide,
    waiting_calls,
)
from tools import tool

SETTINGS: Any = {"configurable": {"thread_id": "t"}}


def model_of(*script: Any) -> tuple[ChatVLLM, ScriptedEngine]:
    engine = ScriptedEngine(list(script))
    return ChatVLLM(engine=engine), engine


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def said(request: Any) -> str:
    return json.dumps(request["messages"])


class Runs(list[int]):
    """Amounts that were paid."""


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def pay(runs: Runs) -> Any:
    @tool
    def pay(amount: int) -> str:
        """Pay an amount."""
        runs.append(amount)
        return f"paid {amount}"

    return pay


# The supervisor


def by_content(replies: dict[str, Any]) -> Any:
    """Answers by what was asked last: workers run side by side, in no fixed order."""

    def answer(request: Any) -> Any:
        last = request["messages"][-1]["content"]
        return next(reply for words, reply in replies.items() if words in last)

    return answer


def team_of(*script: Any, **options: Any) -> tuple[Any, ScriptedEngine]:
    model, engine = model_of(*script)
    workers = [
        ("poet", "Writes verse.", build_react_graph(model=model)),
        Worker(name="clerk", description="Pays.", graph=build_react_graph(model=model)),
    ]
    options.setdefault("checkpointer", InMemorySaver())
    return build_supervisor_graph(model=model, workers=workers, **options), engine


def test_tasks_reach_the_workers_they_are_for_and_answers_come_back(run):
    both = Reply(tool_calls=[call("poet", task="a rhyme"), call("clerk", task="a bill")])
    worker = by_content({"a rhyme": "roses are red", "a bill": "ten pounds"})
    graph, engine = team_of(both, worker, worker, "Here you are.")
    state = run(graph, "A rhyme and a bill, please.")
    results = {m.name: m.text for m in state["messages"] if isinstance(m, ToolMessage)}
    assert results == {"poet": "roses are red", "clerk": "ten pounds"}
    assert state["messages"][-1].text == "Here you are."
    offered = [each["function"]["name"] for each in engine.requests[0]["tools"]]
    assert offered == ["clerk", "poet"]
    assert engine.requests[0]["tool_choice"] == "required"
    # A worker sees its task alone.
    assert all("A rhyme and a bill" not in said(request) for request in engine.requests[1:3])
    assert engine.requests[3]["tool_choice"] == "auto"


def test_with_auto_the_supervisor_may_answer_by_itself(run):
    graph, engine = team_of("Hello.", first="auto")
    assert run(graph, "Hi")["messages"][-1].text == "Hello."
    assert engine.requests[0]["tool_choice"] == "auto"


def test_own_tools_unknown_workers_and_bad_tasks_have_results(run, pay, runs):
    odd = Reply(
        tool_calls=[call("pay", amount=3), call("nobody", task="x"), call("poet", job="x")],
    )
    graph, _ = team_of(odd, "Well.", tools=[pay])
    state = run(graph, "go")
    results = {m.name: (m.status, m.text) for m in state["messages"] if isinstance(m, ToolMessage)}
    assert results["pay"] == ("success", "paid 3")
    assert results["nobody"][0] == "error"
    assert results["poet"][0] == "error"
    assert "task" in results["poet"][1]
    assert runs == [3]


def test_workers_are_drawn_with_what_is_in_them():
    graph, _ = team_of()
    assert {"poet", "clerk", "model", "tools"} <= set(graph.get_graph().nodes)
    assert {"poet:model", "clerk:tools"} <= set(graph.get_graph(xray=True).nodes)


@pytest.mark.parametrize("name", ["", "1st", "model", "tools", "a b"])
def test_a_worker_needs_a_name_that_nodes_and_tools_can_have(name):
    with pytest.raises(ValueError, match="cannot be called"):
        Worker(name=name, description="x", graph=build_react_graph(model=model_of()[0]))


def test_two_workers_of_one_name_are_refused():
    model, _ = model_of()
    graph = build_react_graph(model=model)
    with pytest.raises(Exception, match="two tools are called 'a'"):
        build_supervisor_graph(model=model, workers=[("a", "x", graph), ("a", "y", graph)])


def test_tokens_and_events_of_workers_are_streamed():
    one = Reply(tool_calls=[call("poet", task="a rhyme")])
    graph, _ = team_of(one, "roses are red", "Here you are.")
    parts = [*graph.stream({"messages": "go"}, SETTINGS, stream_mode=["messages", "custom"], subgraphs=True)]
    words = "".join(payload[0].content for _, mode, payload in parts if mode == "messages")
    assert "roses are red" in words
    assert "Here you are." in words
    events = [payload["type"] for _, mode, payload in parts if mode == "custom"]
    assert events == ["worker_started", "worker_finished"]


def two_that_wait(pay: Any, *, ids: tuple[str, str], said: dict[str, str]) -> tuple[Any, Any]:
    """Workers «one» and «two» that want to pay 1 and 2 by calls of these ids; what they say in the end."""
    both = Reply(tool_calls=[call("one", task="pay 1"), call("two", task="pay 2")])
    wanted = {
        f"pay {amount}": Reply(tool_calls=[call("pay", amount=amount) | {"id": call_id}])
        for amount, call_id in enumerate(ids, start=1)
    }
    worker = by_content({**wanted, **said})
    model, _ = model_of(both, worker, worker, worker, worker, "Done.")
    workers = [(name, name, build_approval_graph(model=model, tools=[pay])) for name in ("one", "two")]
    graph = build_supervisor_graph(model=model, workers=workers, checkpointer=InMemorySaver())
    state = graph.invoke({"messages": "go"}, SETTINGS)
    return graph, state


def test_two_workers_that_wait_get_the_decisions_that_are_theirs(pay, runs):
    """Both wait at once, in graphs of their own: a value for whoever comes first would be a coin toss."""
    said = {"paid 1": "one is paid", "did not allow": "two is not"}
    graph, state = two_that_wait(pay, ids=("c1", "c2"), said=said)
    assert sorted(each["id"] for each in waiting_calls(state)) == ["c1", "c2"]
    state = graph.invoke(decide({"c2": Reject(), "c1": Approve()}, to=state), SETTINGS)
    results = {m.name: m.text for m in state["messages"] if isinstance(m, ToolMessage)}
    assert results == {"one": "one is paid", "two": "two is not"}
    assert runs == [1]


def test_two_workers_whose_models_number_alike_get_the_decisions_that_are_theirs(pay, runs):
    said = {"paid 2": "two is paid", "did not allow": "one is not"}
    graph, state = two_that_wait(pay, ids=("functions.pay:0", "functions.pay:0"), said=said)
    waiting = waiting_calls(state)
    decisions = {each["id"]: Approve() if each["args"]["amount"] == 2 else Reject() for each in waiting}
    state = graph.invoke(decide(decisions, to=state), SETTINGS)
    results = {m.name: m.text for m in state["messages"] if isinstance(m, ToolMessage)}
    assert results == {"one": "one is not", "two": "two is paid"}
    assert runs == [2]


def test_a_worker_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, pay, runs):
    def graph_on(saver: Any, *script: Any) -> Any:
        model, _ = model_of(*script)
        worker = ("clerk", "Pays.", build_react_graph(model=model, tools=[pay]))
        return build_supervisor_graph(model=model, workers=[worker], checkpointer=saver)

    script = [Reply(tool_calls=[call("clerk", task="pay 5")]), Reply(tool_calls=[call("pay", amount=5)])]
    with open_checkpointer(tmp_path / "t.db") as saver, pytest.raises(Exception, match="script"):
        graph_on(saver, *script).invoke({"messages": "go"}, SETTINGS, durability="sync")
    assert runs == [5]
    with open_checkpointer(tmp_path / "t.db") as saver:
        state = graph_on(saver, "I paid.", "Done.").invoke(None, SETTINGS)
    assert [m.text for m in state["messages"] if isinstance(m, ToolMessage)] == ["I paid."]
    assert state["messages"][-1].text == "Done."
    assert runs == [5]


def test_without_workers_there_is_a_team(run, pay):
    model, engine = model_of(Reply(tool_calls=[call("doer", task="pay")]), "Paid.", "It is paid.")
    graph = build_supervisor_graph(model=model, tools=[pay], checkpointer=InMemorySaver())
    assert run(graph, "go")["messages"][-1].text == "It is paid."
    tools = {each["function"]["name"]: each["function"] for each in engine.requests[0]["tools"]}
    assert tools.keys() == {"doer", "writer"}
    assert "pay" in tools["doer"]["description"]
    assert [each["function"]["name"] for each in engine.requests[1]["tools"]] == ["pay"]


# Plan and execute


def plan(*steps: str) -> Reply:
    return Reply(tool_calls=[call("Plan", steps=list(steps))])


def replan(*steps: str) -> Reply:
    return Reply(tool_calls=[call("Replan", finished=not steps, steps=list(steps))])


def planner_of(*script: Any, **options: Any) -> tuple[Any, ScriptedEngine]:
    model, engine = model_of(*script)
    options.setdefault("checkpointer", InMemorySaver())
    return build_plan_execute_graph(model=model, **options), engine


def test_steps_are_done_in_order_and_the_answer_knows_their_results(run, pay, runs):
    graph, engine = planner_of(
        plan("pay three", "tell"),
        Reply(tool_calls=[call("pay", amount=3)]),
        "three are paid",
        replan("tell"),
        "told",
        replan(),
        "All done.",
        tools=[pay],
    )
    state = run(graph, "Pay and tell.")
    assert [(each["step"], each["result"]) for each in state["results"]] == [
        ("pay three", "three are paid"),
        ("tell", "told"),
    ]
    assert state["plan"] == []
    assert [m.type for m in state["messages"]] == ["human", "ai"]
    assert state["messages"][-1].text == "All done."
    assert runs == [3]
    assert engine.requests[0]["tool_choice"]["function"]["name"] == "Plan"
    second = said(engine.requests[4])
    assert "three are paid" in second
    assert "Pay and tell." in second
    assert "told" in said(engine.requests[-1])


def test_a_second_question_begins_a_plan_of_its_own(run):
    script = [plan("a"), "A", replan(), "One.", plan("b"), "B", replan(), "Two."]
    graph, _ = planner_of(*script)
    run(graph, "first")
    state = run(graph, "second")
    assert [each["step"] for each in state["results"]] == ["b"]
    assert [m.text for m in state["messages"]] == ["first", "One.", "second", "Two."]
    assert "A" not in [each["result"] for each in state["results"]]


def test_plans_that_never_end_are_ended(run):
    graph, _ = planner_of(plan("s0"), "r", replan("s1"), "r", replan("s2"), "r", "Enough.", max_plan_steps=3)
    state = run(graph, "go")
    assert [each["step"] for each in state["results"]] == ["s0", "s1", "s2"]
    assert state["messages"][-1].text == "Enough."


def test_a_model_that_makes_no_plan_answers_in_one_step(run):
    graph, _ = planner_of("no plan", "still none", "the step's answer", "no", "no", "The answer.")
    state = run(graph, "What now?")
    assert state["results"] == [{"step": "What now?", "result": "the step's answer"}]
    assert state["messages"][-1].text == "The answer."


def test_a_plan_that_was_cut_off_goes_on_inside_its_step(tmp_path: Path, pay, runs):
    begun = [plan("pay", "tell"), Reply(tool_calls=[call("pay", amount=4)])]
    with open_checkpointer(tmp_path / "t.db") as saver, pytest.raises(Exception, match="script"):
        planner_of(*begun, tools=[pay], checkpointer=saver)[0].invoke(
            {"messages": "go"}, SETTINGS, durability="sync"
        )
    assert runs == [4]
    with open_checkpointer(tmp_path / "t.db") as saver:
        rest = ["paid", replan("tell"), "told", replan(), "Done."]
        graph, _ = planner_of(*rest, tools=[pay], checkpointer=saver)
        state = graph.invoke(None, SETTINGS)
    assert [each["result"] for each in state["results"]] == ["paid", "told"]
    assert state["messages"][-1].text == "Done."
    assert runs == [4]


def test_a_step_may_wait_for_a_person(pay, runs):
    model, _ = model_of(
        plan("pay"), Reply(tool_calls=[call("pay", amount=4) | {"id": "c1"}]), "paid", replan(), "Done."
    )
    executor = build_approval_graph(model=model, tools=[pay])
    graph = build_plan_execute_graph(model=model, executor=executor, checkpointer=InMemorySaver())
    state = graph.invoke({"messages": "go"}, SETTINGS)
    assert [each["id"] for each in waiting_calls(state)] == ["c1"]
    state = graph.invoke(decide({"c1": Approve()}), SETTINGS)
    assert state["messages"][-1].text == "Done."
    assert runs == [4]


def test_the_progress_of_a_plan_is_told_and_decisions_are_not_streamed_as_text():
    graph, _ = planner_of(plan("a"), "A word", replan(), "The end.")
    parts = [*graph.stream({"messages": "go"}, SETTINGS, stream_mode=["messages", "custom"], subgraphs=True)]
    events = [payload["type"] for _, mode, payload in parts if mode == "custom"]
    assert events == ["planned", "step_started", "step_finished", "planned"]
    chunks = [payload[0] for _, mode, payload in parts if mode == "messages"]
    assert "".join(each.content for each in chunks) == "A wordThe end."
    assert not any(isinstance(each, AIMessage) and each.tool_calls for each in chunks)


def test_a_plan_needs_room_for_a_step():
    with pytest.raises(ValueError, match="max_plan_steps=0"):
        planner_of(max_plan_steps=0)
