"""Files that LangGraph's own SQLite saver wrote, taken over whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from agent.errors import DatabaseError
from agent.persistence import ConversationStore, import_langgraph_sqlite, open_checkpointer


def fold(messages: list[Any], written: list[Any]) -> list[Any]:
    for each in written:
        messages = add_messages(messages, each)
    return messages


class Whole(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Delta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold, snapshot_frequency=4)]


def build(saver: Any, state: type) -> Any:
    def echo(state: Any) -> dict[str, Any]:
        text = state["messages"][-1].text
        return {"messages": [AIMessage(interrupt("really?") if text == "ask me" else f"re: {text}")]}

    builder = StateGraph(state)
    builder.add_node("echo", echo)
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


def on(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


@pytest.mark.parametrize("state", [Whole, Delta])
def test_everything_is_taken_over(tmp_path: Path, state: type) -> None:
    source = tmp_path / "official.sqlite"
    with SqliteSaver.from_conn_string(str(source)) as official:
        graph = build(official, state)
        for turn in range(7):
            graph.invoke({"messages": [HumanMessage(f"turn {turn}")]}, on("long"))
        graph.invoke({"messages": [HumanMessage("ask me")]}, on("waiting"))
        expected = [snapshot.values for snapshot in graph.get_state_history(on("long"))]
    content = source.read_bytes()

    with open_checkpointer(tmp_path / "ours.sqlite") as saver:
        report = import_langgraph_sqlite(saver, source)
        assert set(report.imported) == {"long", "waiting"}
        assert set(import_langgraph_sqlite(saver, source).skipped) == {"long", "waiting"}
        graph = build(saver, state)
        assert [snapshot.values for snapshot in graph.get_state_history(on("long"))] == expected
        store = ConversationStore(saver)
        assert {(each.id, each.title, each.status) for each in store.list()} == {
            ("long", "turn 0", "idle"),
            ("waiting", "ask me", "interrupted"),
        }
        assert store.get("long").message_count == 14
        assert store.get("long").created_at < store.get("long").updated_at
        resumed = graph.invoke(Command(resume="yes"), on("waiting"))
        assert resumed["messages"][-1].text == "yes"
        graph.invoke({"messages": [HumanMessage("more")]}, on("long"))
        assert [m.text for m in graph.get_state(on("long")).values["messages"]][-2:] == ["more", "re: more"]
    assert source.read_bytes() == content


def test_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 1000)
    with open_checkpointer(tmp_path / "ours.sqlite") as saver:
        with pytest.raises(DatabaseError, match="no file"):
            import_langgraph_sqlite(saver, tmp_path / "missing")
        with pytest.raises(DatabaseError, match="cannot be imported"):
            import_langgraph_sqlite(saver, tmp_path / "rubbish")
        with pytest.raises(DatabaseError, match="cannot be imported"):
            import_langgraph_sqlite(saver, tmp_path / "ours.sqlite")
