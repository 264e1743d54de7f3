"""Real LangGraph graphs on the saver: resuming, interrupts, time travel, forks, delta channels, conflicts."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

from agent.errors import ConflictError
from agent.persistence import ConversationStore, SQLSaver, open_checkpointer


def fold(messages: list[Any], written: list[Any]) -> list[Any]:
    for each in written:
        messages = add_messages(messages, each)
    return messages


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class DeltaState(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold, snapshot_frequency=7)]


def echo_graph(saver: SQLSaver, state: type = State) -> Any:
    builder = StateGraph(state)
    builder.add_node(
        "echo", lambda state: {"messages": [AIMessage("you said " + state["messages"][-1].text)]}
    )
    builder.add_edge(START, "echo")
    builder.add_edge("echo", END)
    return builder.compile(checkpointer=saver)


def approval_graph(saver: SQLSaver) -> Any:
    def ask(state: State) -> dict[str, Any]:
        answer = interrupt({"approve": state["messages"][-1].text})
        return {"messages": [AIMessage(f"answer: {answer}")]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    return builder.compile(checkpointer=saver)


def on(thread_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id}}


def answer(text: str) -> Any:
    return Command(resume=text)


def say(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def texts(state: Any) -> list[str]:
    return [message.text for message in state.values["messages"]]


@pytest.fixture(params=["sqlite", "postgresql"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    if request.param == "sqlite":
        return tmp_path / "conversations.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.mark.parametrize("state", [State, DeltaState])
def test_conversation_continues_after_reopening(path: Path, state: type) -> None:
    for turn in range(12):
        with open_checkpointer(path) as saver:
            echo_graph(saver, state).invoke(say(f"turn {turn}"), on("t"))
    with open_checkpointer(path) as saver:
        found = texts(echo_graph(saver, state).get_state(on("t")))
    assert found == [text for turn in range(12) for text in (f"turn {turn}", f"you said turn {turn}")]


@pytest.mark.parametrize("state", [State, DeltaState])
def test_every_earlier_state_can_be_read(path: Path, state: type) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, state)
        for turn in range(20):
            graph.invoke(say(f"turn {turn}"), on("t"))
        history = list(graph.get_state_history(on("t")))
        lengths = [len(snapshot.values.get("messages", ())) for snapshot in history]
        assert lengths == sorted(lengths, reverse=True)
        assert set(lengths) == set(range(41))
        for snapshot in history[::9]:
            assert texts(graph.get_state(snapshot.config)) == [m.text for m in snapshot.values["messages"]]


def test_another_process_resumes_an_interrupted_graph(path: Path) -> None:
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.integration.test_persistence_graphs import *
        with open_checkpointer({str(path)!r}) as saver:
            result = approval_graph(saver).invoke(COMMAND, on("t"))
            print(result["messages"][-1].text, "__interrupt__" in result)
    """

    def run(command: str) -> str:
        code = textwrap.dedent(script).replace("COMMAND", command)
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        ).stdout.strip()

    assert run("say('pay 5')") == "pay 5 True"
    with open_checkpointer(path) as saver:
        assert ConversationStore(saver).get("t").status == "interrupted"
    assert run("answer('yes')") == "answer: yes False"
    with open_checkpointer(path) as saver:
        assert ConversationStore(saver).get("t").status == "idle"


@pytest.mark.parametrize("state", [State, DeltaState])
def test_time_travel_forks_on_purpose(path: Path, state: type) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, state)
        for turn in range(4):
            graph.invoke(say(f"turn {turn}"), on("t"))
        first = next(s for s in graph.get_state_history(on("t")) if len(s.values["messages"]) == 2)
        graph.invoke(say("another way"), first.config)
        assert texts(graph.get_state(on("t"))) == [
            "turn 0",
            "you said turn 0",
            "another way",
            "you said another way",
        ]
        forked = graph.update_state(first.config, {"messages": [AIMessage("edited")]})
        assert texts(graph.get_state(forked)) == ["turn 0", "you said turn 0", "edited"]
        replayed = graph.invoke(None, next(s for s in graph.get_state_history(on("t")) if s.next).config)
        assert replayed["messages"][-1].text.startswith("you said")


@pytest.mark.parametrize("state", [State, DeltaState])
def test_edits_and_removals_are_kept(path: Path, state: type) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, state)
        for turn in range(5):
            graph.invoke(say(f"turn {turn}"), on("t"))
        messages = graph.get_state(on("t")).values["messages"]
        graph.update_state(on("t"), {"messages": [RemoveMessage(m.id) for m in messages[:4]]})
        graph.update_state(on("t"), {"messages": [HumanMessage("changed", id=messages[4].id)]})
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, state)
        expected = ["changed", *(m.text for m in messages[5:])]
        assert texts(graph.get_state(on("t"))) == expected
        transcript = ConversationStore(saver).get("t")
        assert [m.text for m in transcript.messages] == expected
        assert ConversationStore(saver).list()[0].message_count == len(expected)


async def test_parallel_writes_keep_their_order(path: Path) -> None:
    class Log(TypedDict):
        log: Annotated[list[str], DeltaChannel(lambda log, new: log + [x for each in new for x in each])]

    async def work(state: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.01 * (5 - state["number"]))
        return {"log": [f"work {state['number']}"]}

    builder = StateGraph(Log)
    builder.add_node("work", work)
    builder.add_conditional_edges(START, lambda _: [Send("work", {"number": n}) for n in range(5)])
    async with open_checkpointer(path) as saver:
        graph = builder.compile(checkpointer=saver)
        live = (await graph.ainvoke({"log": ["start"]}, on("t")))["log"]
    async with open_checkpointer(path) as saver:
        assert (await builder.compile(checkpointer=saver).aget_state(on("t"))).values["log"] == live


async def test_subgraphs_with_their_own_memory_travel_in_time(path: Path) -> None:
    class Count(TypedDict):
        count: Annotated[int, operator.add]

    inner = StateGraph(Count)
    inner.add_node("add", lambda state: {"count": 1})
    inner.add_edge(START, "add")
    outer = StateGraph(Count)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "inner")
    async with open_checkpointer(path) as saver:
        graph = outer.compile(checkpointer=saver)
        for _ in range(3):
            await graph.ainvoke({"count": 0}, on("t"))
        history = [s async for s in graph.aget_state_history(on("t"))]
        for snapshot in history:
            if snapshot.next:
                await graph.ainvoke(None, snapshot.config)


@pytest.mark.parametrize("same_saver", [True, False])
def test_two_writers_on_one_thread_one_wins(path: Path, same_saver: bool) -> None:
    with open_checkpointer(path) as first, open_checkpointer(path) as other:
        second = first if same_saver else other
        echo_graph(first).invoke(say("before"), on("t"))
        head = second.get_tuple(on("t"))
        assert head is not None
        echo_graph(first).invoke(say("winner"), on("t"))
        late: Any = {**head.checkpoint, "id": "ffffffff-0000-6000-8000-000000000000"}
        with pytest.raises(ConflictError, match="another writer"):
            second.put(head.config, late, {"source": "loop"}, {})
        assert texts(echo_graph(first).get_state(on("t")))[-1] == "you said winner"

        assert second.get_tuple(head.config) is not None  # named: now it is a fork on purpose
        second.put(head.config, late, {"source": "fork"}, {})


async def test_concurrent_runs_on_one_thread_never_fork(path: Path) -> None:
    async with open_checkpointer(path) as saver:
        graph = echo_graph(saver)
        await graph.ainvoke(say("before"), on("t"))
        outcomes = await asyncio.gather(
            *(graph.ainvoke(say(f"run {n}"), on("t")) for n in range(6)), return_exceptions=True
        )
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        assert len(failures) < 6
        assert all(isinstance(each, ConflictError) for each in failures)
        parents = [found.parent_config for found in saver.list(on("t"))]
        ids = [each["configurable"]["checkpoint_id"] for each in parents if each]
        assert len(ids) == len(set(ids)), "two checkpoints have one parent"


def test_one_saver_serves_loops_and_threads(path: Path) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver)
        errors: list[BaseException] = []

        def converse(name: str, loop: bool) -> None:
            try:
                for turn in range(5):
                    if loop:
                        asyncio.run(graph.ainvoke(say(f"{turn}"), on(name)))
                    else:
                        graph.invoke(say(f"{turn}"), on(name))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=converse, args=(f"t{n}", n % 2 == 0)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert all(len(graph.get_state(on(f"t{n}")).values["messages"]) == 10 for n in range(8))


async def test_sync_calls_inside_a_running_loop(path: Path) -> None:
    async with open_checkpointer(path) as saver:
        graph = echo_graph(saver)
        await graph.ainvoke(say("async"), on("t"))
        graph.invoke(say("sync"), on("t"))
        assert texts(graph.get_state(on("t"))) == ["async", "you said async", "sync", "you said sync"]


def test_copying_a_state_within_a_thread_is_no_conflict(path: Path) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver)
        graph.invoke(say("hello"), on("t"))
        head = graph.get_state(on("t"))
        copied = graph.update_state(on("t"), None, as_node="__copy__")
        assert graph.get_state(copied).values == head.values
        assert graph.get_state(copied).config != head.config


def test_pruned_delta_thread_keeps_its_messages(path: Path) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, DeltaState)
        for turn in range(10):
            graph.invoke(say(f"turn {turn}"), on("t"))
        before = texts(graph.get_state(on("t")))
        saver.prune(["t"], strategy="keep_latest")
        assert texts(graph.get_state(on("t"))) == before
        assert len(list(saver.list(on("t")))) < 30
        graph.invoke(say("after"), on("t"))
        assert texts(graph.get_state(on("t"))) == [*before, "after", "you said after"]


@pytest.mark.parametrize("state", [State, DeltaState])
def test_copied_thread_is_independent(path: Path, state: type) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, state)
        for turn in range(9):
            graph.invoke(say(f"turn {turn}"), on("t"))
        saver.copy_thread("t", "copy")
        graph.invoke(say("only here"), on("copy"))
        saver.delete_thread("t")
        assert texts(graph.get_state(on("copy")))[-3:] == [
            "you said turn 8",
            "only here",
            "you said only here",
        ]
        assert graph.get_state(on("t")).values == {}
        with pytest.raises(ConflictError, match="already"):
            saver.copy_thread("copy", "copy")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("state", [State, DeltaState])
def test_every_durability(path: Path, state: type, durability: Any) -> None:
    with open_checkpointer(path) as saver:
        graph = echo_graph(saver, state)
        for turn in range(9):
            graph.invoke(say(f"turn {turn}"), on("t"), durability=durability)
        assert len(texts(graph.get_state(on("t")))) == 18
        assert ConversationStore(saver).list()[0].message_count == 18
        assert ConversationStore(saver).list()[0].title == "turn 0"


def test_tool_messages_survive_whole(path: Path) -> None:
    said = [
        AIMessage(
            "calling",
            tool_calls=[{"name": "f", "args": {"x": [1, {"y": None}]}, "id": "c1"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            response_metadata={"finish_reason": "tool_calls"},
            additional_kwargs={"reasoning": "because"},
        ),
        ToolMessage("result", tool_call_id="c1", artifact={"raw": b"\x00\xff"}, status="error", name="f"),
        HumanMessage([{"type": "text", "text": "a"}, {"type": "image", "url": "https://example.org/a.png"}]),
    ]
    with open_checkpointer(path) as saver:
        echo_graph(saver).update_state(on("t"), {"messages": said})
    with open_checkpointer(path) as saver:
        loaded = echo_graph(saver).get_state(on("t")).values["messages"]
    assert loaded == said
    assert [type(message) for message in loaded] == [type(message) for message in said]
    loaded[0].content = "can be changed"
    assert loaded[0].model_copy(update={"id": "x"}).id == "x"
