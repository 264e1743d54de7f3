"""Databases that LangGraph's own savers wrote, taken over whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from postgres_server import PASSWORD

from agent.errors import ConfigurationError, DatabaseError
from agent.persistence import (
    ConversationStore,
    Imported,
    import_langgraph_postgres,
    import_langgraph_sqlite,
    open_checkpointer,
)


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


Opener = Callable[[str], AbstractContextManager[BaseCheckpointSaver[Any]]]
SAVERS: dict[str, tuple[Opener, Callable[..., Imported]]] = {
    "sqlite": (SqliteSaver.from_conn_string, import_langgraph_sqlite),
    "postgresql": (PostgresSaver.from_conn_string, import_langgraph_postgres),
}


@pytest.fixture(params=list(SAVERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return str(tmp_path / "official.sqlite")


@pytest.mark.parametrize("state", [Whole, Delta])
def test_everything_is_taken_over(tmp_path: Path, kind: str, source: str, state: type) -> None:
    opener, take_over = SAVERS[kind]
    with opener(source) as official:
        official.setup()  # type: ignore[attr-defined]
        graph = build(official, state)
        for turn in range(7):
            graph.invoke({"messages": [HumanMessage(f"turn {turn}")]}, on("long"))
        graph.invoke({"messages": [HumanMessage("ask me")]}, on("waiting"))
        expected = [snapshot.values for snapshot in graph.get_state_history(on("long"))]

    with open_checkpointer(tmp_path / "ours.sqlite") as saver:
        report = take_over(saver, source)
        assert set(report.imported) == {"long", "waiting"}
        assert set(take_over(saver, source).skipped) == {"long", "waiting"}
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
    with opener(source) as official:  # it was only read
        history = [snapshot.values for snapshot in build(official, state).get_state_history(on("long"))]
        assert history == expected


def test_into_the_database_that_they_are_in(postgres_url: str) -> None:
    with PostgresSaver.from_conn_string(postgres_url) as official:
        official.setup()
        build(official, Whole).invoke({"messages": [HumanMessage("hello")]}, on("t"))
    with open_checkpointer(postgres_url) as saver:
        assert import_langgraph_postgres(saver, postgres_url).imported == ("t",)
        assert [m.text for m in ConversationStore(saver).get("t").messages] == ["hello", "re: hello"]


def test_a_database_that_is_none_of_theirs_is_refused(tmp_path: Path, postgres_url: str) -> None:
    with open_checkpointer(tmp_path / "ours.sqlite") as saver:
        with pytest.raises(DatabaseError, match="holds no conversations of LangGraph") as caught:
            import_langgraph_postgres(saver, postgres_url)
        assert PASSWORD not in str(caught.value)
        with pytest.raises(ConfigurationError, match="no address of a PostgreSQL"):
            import_langgraph_postgres(saver, str(tmp_path / "file"))
        with pytest.raises(DatabaseError, match="is the server running"):
            import_langgraph_postgres(saver, "postgresql://127.0.0.1:1/x")


def test_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 1000)
    with open_checkpointer(tmp_path / "ours.sqlite") as saver:
        with pytest.raises(DatabaseError, match="no file"):
            import_langgraph_sqlite(saver, tmp_path / "missing")
        with pytest.raises(DatabaseError, match="cannot be imported"):
            import_langgraph_sqlite(saver, tmp_path / "rubbish")
        with pytest.raises(DatabaseError, match="cannot be imported"):
            import_langgraph_sqlite(saver, tmp_path / "ours.sqlite")


DAMAGE = {
    "sqlite": {
        "unsafe": "UPDATE checkpoints SET type = 'pickle' WHERE thread_id = 'b'",
        "cut off": "UPDATE checkpoints SET checkpoint = substr(checkpoint, 1, 40) WHERE thread_id = 'b'",
        "something else": "UPDATE checkpoints SET type = 'json', checkpoint = '[1]' WHERE thread_id = 'b'",
        "half": "UPDATE checkpoints SET type = 'json', checkpoint = '{\"id\": \"1\"}' WHERE thread_id = 'b'",
        "metadata": "UPDATE checkpoints SET metadata = '[]' WHERE thread_id = 'b'",
        "the last write": (
            "UPDATE writes SET value = x'c1' WHERE thread_id = 'b' AND checkpoint_id = "
            "(SELECT max(checkpoint_id) FROM writes WHERE thread_id = 'b')"
        ),
    },
    "postgresql": {
        "unsafe": "UPDATE checkpoint_blobs SET type = 'pickle' WHERE thread_id = 'b' AND type <> 'empty'",
        "cut off": r"UPDATE checkpoint_blobs SET blob = '\xc1' WHERE thread_id = 'b' AND type <> 'empty'",
        "something else": "UPDATE checkpoints SET checkpoint = '[1]' WHERE thread_id = 'b'",
        "half": "UPDATE checkpoints SET checkpoint = '{\"id\": \"1\"}' WHERE thread_id = 'b'",
        "metadata": "UPDATE checkpoints SET metadata = '[]' WHERE thread_id = 'b'",
        "a write": r"UPDATE checkpoint_writes SET blob = '\xc1' WHERE thread_id = 'b'",
    },
}


@pytest.mark.parametrize(("kind", "how"), [(kind, how) for kind in DAMAGE for how in DAMAGE[kind]])
def test_one_that_is_damaged_keeps_no_other_out(tmp_path: Path, kind: str, source: str, how: str) -> None:
    opener, take_over = SAVERS[kind]
    with opener(source) as official:
        official.setup()  # type: ignore[attr-defined]
        for name in "abc":
            build(official, Whole).invoke({"messages": [HumanMessage("hello")]}, on(name))
        official.conn.execute(DAMAGE[kind][how])  # type: ignore[attr-defined]
        if kind == "sqlite":
            official.conn.commit()  # type: ignore[attr-defined]
    with open_checkpointer(source if kind == "postgresql" else tmp_path / "ours.sqlite") as saver:
        report = take_over(saver, source)
        assert (set(report.imported), set(report.failed)) == ({"a", "c"}, {"b"})
        assert "cannot be read" in report.failed["b"]
        store = ConversationStore(saver)
        assert {each.id: each.message_count for each in store.list()} == {"a": 2, "c": 2}
        assert list(saver.list(on("b"))) == []
        assert (store.doctor(), store.size().checkpoints) == ([], 6)


def test_where_they_go_is_not_blamed_on_them(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "official.sqlite")) as official:
        build(official, Whole).invoke({"messages": [HumanMessage("hello")]}, on("a"))
    with open_checkpointer(tmp_path / "ours.sqlite") as saver:
        saver.database.outside_transaction("DROP TABLE writes")
        with pytest.raises(DatabaseError, match="no such table"):
            import_langgraph_sqlite(saver, tmp_path / "official.sqlite")
