"""The react graph: calls, failures, limits. Each test runs synchronously and asynchronously."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from graph_doubles import ScriptedModel, calls, malformed
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from graphs import build_react_graph
from graphs.limits import TurnLimits
from tools import ToolPolicy, tool


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def add_later(a: int, b: int) -> int:
    """Add two numbers after a while."""
    await asyncio.sleep(0.01)
    return a + b


@tool
def explode() -> str:
    """Always fails."""
    raise RuntimeError("the boiler burst")


@tool
def leave() -> str:
    """Tries to end the process."""
    raise SystemExit(3)


@tool(policy=ToolPolicy(timeout=0.1))
async def hang() -> str:
    """Never ends."""
    await asyncio.sleep(60)
    return "?"


@tool
def strange() -> Any:
    """Returns what no checkpoint can hold."""
    return threading.Lock()


ALL = [add, add_later, explode, leave, hang, strange]


def results(state: dict[str, Any]) -> list[ToolMessage]:
    return [m for m in state["messages"] if isinstance(m, ToolMessage)]


def build(script: list[Any], **options: Any) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel(script=script)
    options = {"tools": ALL, "checkpointer": InMemorySaver(), **options}
    return build_react_graph(model=model, **options), model


def test_a_question_is_answered_with_the_results_of_tools(run):
    graph, model = build([calls(("add", {"a": 2, "b": 3}), ("add_later", {"a": 4, "b": 5})), "5 and 9"])
    state = run(graph, "2+3 and 4+5?")
    assert [m.text for m in state["messages"]] == ["2+3 and 4+5?", "", "5", "9", "5 and 9"]
    assert [m.tool_call_id for m in results(state)] == ["c0", "c1"]
    assert model.requests[1][-1].text == "9"


def test_a_graph_without_tools_answers_and_binds_nothing(run):
    graph, model = build(["hello"], tools=[])
    assert run(graph, "hi")["messages"][-1].text == "hello"
    assert model.offered == [None]


def test_a_graph_works_without_a_saver():
    graph, _ = build([calls(("add", {"a": 1, "b": 1})), "2"], checkpointer=None)
    assert graph.invoke({"messages": "1+1?"})["messages"][-1].text == "2"


def test_the_conversation_goes_on_in_its_thread(run):
    graph, model = build(["first", "second"])
    run(graph, "one")
    run(graph, "two")
    assert [m.text for m in model.requests[1]] == ["one", "first", "two"]


def test_plain_functions_are_tools_and_two_with_one_name_are_refused():
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    graph, _ = build([calls(("double", {"x": 4})), "8"], tools=[double])
    assert results(graph.invoke({"messages": "?"}, {"configurable": {"thread_id": "1"}}))[0].text == "8"
    with pytest.raises(ValueError, match="two tools are called 'add'"):
        build(["x"], tools=[add, tool("add", lambda x: x, description="other")])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("explode", {}), "the boiler burst"),
        (("leave", {}), "tried to end the program"),
        (("hang", {}), "did not finish within 0.1 s"),
        (("nothing_like_it", {}), "There is no tool 'nothing_like_it'"),
        (("add", {"a": "many", "b": 1}), "a"),
        (("add", {}), "b"),
    ],
)
def test_whatever_goes_wrong_in_a_tool_the_model_is_told_and_the_run_goes_on(run, call, says):
    graph, model = build([calls(call), "sorry"])
    state = run(graph, "go")
    (result,) = results(state)
    assert result.status == "error"
    assert says in result.text
    assert state["messages"][-1].text == "sorry"
    assert model.requests[1][-1].text == result.text


def test_a_result_that_cannot_be_stored_becomes_text(run):
    graph, _ = build([calls(("strange", {})), "odd"])
    assert "lock" in results(run(graph, "go"))[0].text


def test_an_error_in_one_call_leaves_its_neighbours_alone(run):
    graph, _ = build([calls(("explode", {}), ("add", {"a": 1, "b": 2}), ("leave", {})), "one worked"])
    assert [m.status for m in results(run(graph, "go"))] == ["error", "success", "error"]


@pytest.mark.parametrize("blocking", [True, False])
def test_calls_of_one_answer_run_at_the_same_time(run, blocking):
    barrier = threading.Barrier(5)
    count = 0

    @tool
    def wait_for_four_others(x: int) -> str:
        """Return only if five calls are inside at once."""
        barrier.wait(timeout=60)
        return "met"

    @tool("wait_for_four_others")
    async def async_wait(x: int) -> str:
        """Return only if five calls are inside at once."""
        nonlocal count
        count += 1
        for _ in range(2000):
            if count == 5:
                return "met"
            await asyncio.sleep(0.01)
        return "alone"

    wanted = [("wait_for_four_others", {"x": i}) for i in range(5)]
    graph, _ = build([calls(*wanted), "ok"], tools=[wait_for_four_others if blocking else async_wait])
    assert [m.text for m in results(run(graph, "go"))] == ["met"] * 5


def test_fifty_calls_in_one_answer_all_get_their_results_in_order(run):
    graph, _ = build([calls(*[("add", {"a": i, "b": 0}) for i in range(50)]), "ok"])
    assert [m.text for m in results(run(graph, "go"))] == [str(i) for i in range(50)]


# Limits


def distinct_calls(messages: list[Any]) -> AIMessage:
    return calls(("add", {"a": len(messages), "b": 0}), ids=[f"n{len(messages)}"])


def last_words(messages: list[Any]) -> str:
    return f"told: {messages[-1].text}"


def test_after_max_steps_the_model_answers_without_tools(run):
    graph, model = build([distinct_calls] * 3 + [last_words], max_steps=3)
    state = run(graph, "go")
    answer = state["messages"][-1]
    assert model.offered == [sorted(t.name for t in ALL)] * 3 + [None]
    assert "all the tool calls allowed" in answer.text
    assert answer.response_metadata["stopped_by"] == "max_steps"
    assert "allowed" not in results(state)[-1].text, "the instruction is for the model, not for the thread"


def test_a_last_answer_that_still_calls_tools_runs_none_and_says_something(run):
    graph, _ = build([distinct_calls], max_steps=2)
    state = run(graph, "go")
    assert len(results(state)) == 2
    assert state["messages"][-1].tool_calls == []
    assert "no final answer" in state["messages"][-1].text


def test_the_limit_counts_anew_in_the_next_turn(run):
    graph, _ = build([distinct_calls, distinct_calls, "a", distinct_calls, distinct_calls, "b"], max_steps=2)
    run(graph, "go")
    state = run(graph, "again")
    assert len(results(state)) == 4
    assert state["messages"][-1].text == "b"


@pytest.mark.parametrize("limit", range(2, 12))  # with 1, LangGraph itself refuses a graph of one node
def test_a_recursion_limit_of_the_callers_ends_in_an_answer_and_not_in_an_error(run, limit):
    graph, model = build([lambda m: distinct_calls(m) if m[-1].text != "end" else "x"], max_steps=50)
    state = run(graph, "go", recursion_limit=limit)
    assert "steps" in state["messages"][-1].text
    assert state["messages"][-1].response_metadata["stopped_by"] == "recursion_limit"
    assert len(model.requests) == limit // 2, "as many as the limit has room for"


def test_many_steps_need_no_recursion_limit(run):
    graph, _ = build([distinct_calls] * 30 + ["done"], max_steps=40)
    assert run(graph, "go")["messages"][-1].text == "done"


def test_the_same_call_with_the_same_result_is_not_made_for_ever(run):
    def again(messages: list[Any]) -> AIMessage:
        return calls(("add", {"a": 1, "b": 1}), ids=[f"n{len(messages)}"])

    graph, model = build([again, again, again, last_words, again])
    state = run(graph, "go")
    assert len(results(state)) == 3
    assert model.offered[-1] is None
    assert state["messages"][-1].response_metadata["stopped_by"] == "repeated_calls"


def test_repeats_with_new_results_or_beside_new_calls_are_progress(run):
    ticks = iter(range(100))

    @tool
    def poll() -> int:
        """Say something else every time."""
        return next(ticks)

    def same_and_new(messages: list[Any]) -> AIMessage:
        n = len(messages)
        return calls(("add", {"a": 1, "b": 1}), ("add", {"a": n, "b": 0}), ids=[f"a{n}", f"b{n}"])

    def polling(messages: list[Any]) -> AIMessage:
        return calls(("poll", {}), ids=[f"n{len(messages)}"])

    graph, _ = build([polling] * 4 + [same_and_new] * 4 + ["done"], tools=[poll, add])
    assert run(graph, "go")["messages"][-1].text == "done"


def test_equal_calls_in_one_answer_are_no_loop(run):
    graph, _ = build([calls(*[("add", {"a": 1, "b": 1})] * 4, ids=list("abcd")), "done"])
    assert run(graph, "go")["messages"][-1].text == "done"


@pytest.mark.parametrize("field", ["max_steps", "max_repeats"])
def test_limits_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        TurnLimits(**{field: 0})


# Malformed calls


def test_a_malformed_call_is_answered_and_can_be_mended(run):
    graph, model = build([malformed(), calls(("add", {"a": 1, "b": 2})), "3"])
    state = run(graph, "go")
    kinds = [type(m).__name__ for m in state["messages"]]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage", "ToolMessage", "AIMessage"]
    complaint = model.requests[1][-1]
    assert complaint.status == "error"
    assert "could not be read (mismatched bracket), so it was not run" in complaint.text
    assert state["messages"][-1].text == "3"


def test_malformed_calls_are_retried_twice_and_then_end_in_words(run):
    graph, model = build([malformed()] * 20)
    state = run(graph, "go")
    assert len(model.requests) == 4, "one call, two retries, one last answer"
    assert model.offered[-1] is None
    answer = state["messages"][-1]
    assert "malformed" in answer.text
    assert (answer.tool_calls, answer.invalid_tool_calls) == ([], [])


def test_whole_calls_beside_a_malformed_one_are_run(run):
    mixed = calls(("add", {"a": 1, "b": 2}))
    mixed.invalid_tool_calls = malformed().invalid_tool_calls
    graph, _ = build([mixed, "ok"])
    state = run(graph, "go")
    assert {m.tool_call_id: m.status for m in results(state)} == {"c0": "success", "bad": "error"}
    assert state["messages"][-1].text == "ok"


def test_a_malformed_call_without_an_id_gets_one(run):
    graph, _ = build([malformed(call_id=None), "ok"])
    state = run(graph, "go")
    call = state["messages"][1].invalid_tool_calls[0]
    assert call["id"] == results(state)[0].tool_call_id
    assert call["id"]


# Ids, order, prompt


def test_ids_that_the_model_uses_again_are_made_unique(run):
    one = calls(("add", {"a": 1, "b": 1}))
    two = calls(("add", {"a": 2, "b": 2}), ("add", {"a": 3, "b": 3}), ids=["c0", "c0"])
    two.content = [{"type": "tool_use", "id": "c0", "name": "add", "input": {}}] * 2
    graph, _ = build([one, two, "ok"])
    state = run(graph, "go")
    ids = [c["id"] for m in state["messages"] if isinstance(m, AIMessage) for c in m.tool_calls]
    assert len(set(ids)) == 3
    assert ids[0] == "c0"
    assert [m.tool_call_id for m in results(state)] == ids
    assert [m.text for m in results(state)] == ["2", "4", "6"]
    assert [block["id"] for block in state["messages"][3].content] == ids[1:]


def test_requests_only_grow_at_their_end(run):
    graph, model = build(
        [calls(("add", {"a": 1, "b": 2})), "3", "you are welcome"], system_prompt="Be brief."
    )
    run(graph, "1+2?")
    run(graph, "thanks")
    first, second, third = model.requests
    assert second[: len(first)] == first
    assert third[: len(second)] == second
    assert first[0] == SystemMessage("Be brief.")


def test_the_prompt_and_the_order_of_tools_do_not_depend_on_how_they_were_given():
    orders = []
    for tools in (ALL, ALL[::-1]):
        graph, model = build(["hi"], tools=tools)
        graph.invoke({"messages": "hi"}, {"configurable": {"thread_id": "1"}})
        orders.append(model.offered[0])
    assert orders[0] == orders[1]


def test_system_messages_of_the_conversation_join_the_prompt(run):
    graph, model = build(["ok"], system_prompt="Be brief.")
    state = run(graph, [SystemMessage("The user is Ada."), HumanMessage("hi")])
    assert [m.text for m in model.requests[0]] == ["Be brief.\n\nThe user is Ada.", "hi"]
    assert [m.text for m in state["messages"]] == ["The user is Ada.", "hi", "ok"]


def test_building_touches_no_model():
    class Untouchable(ScriptedModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            raise AssertionError("bound too early")

    build_react_graph(model=Untouchable(script=["x"]), tools=ALL).get_graph().draw_mermaid()


def test_errors_of_the_model_reach_the_caller_and_the_thread_stays(run):
    graph, _ = build([ConnectionError("gone"), "back"])
    with pytest.raises(ConnectionError, match="gone"):
        run(graph, "hi")
    assert run(graph, None)["messages"][-1].text == "back"


def test_a_synchronous_run_works_inside_a_running_loop():
    graph, _ = build([calls(("add_later", {"a": 1, "b": 2})), "3"])

    async def notebook_cell() -> Any:
        return graph.invoke({"messages": "go"}, {"configurable": {"thread_id": "1"}})

    assert asyncio.run(notebook_cell())["messages"][-1].text == "3"


async def test_cancelling_a_run_stops_an_async_tool_soon():
    began, stopped = asyncio.Event(), threading.Event()

    @tool
    async def forever() -> str:
        """Never ends."""
        began.set()
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()
        return "?"

    graph, _ = build([calls(("forever", {})), "ok"], tools=[forever])
    task = asyncio.create_task(graph.ainvoke({"messages": "go"}, {"configurable": {"thread_id": "1"}}))
    await asyncio.wait_for(began.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)  # far less than the tool takes by itself
    assert stopped.is_set()
