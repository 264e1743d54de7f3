"""Looking back at conversations, moving, pruning and mending them, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from sqlalchemy import delete, insert, text, update

from agent.errors import ConfigurationError, DatabaseError, PersistenceError, ThreadNotFoundError
from agent.persistence import ConversationStore, SQLSaver, open_checkpointer
from agent.persistence.pruning import choose
from agent.persistence.tables import channels, checkpoints, items, thread_tags, threads, tool_calls


def fold(messages: list[Any], written: list[Any]) -> list[Any]:
    for each in written:
        messages = add_messages(messages, each)
    return messages


class Whole(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    mood: str


class Delta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold)]
    mood: str


class Scores(TypedDict):
    same: Any
    other: Any


def build(saver: SQLSaver, state: type) -> Any:
    builder = StateGraph(state)
    builder.add_node("echo", lambda state: {"messages": [AIMessage("re: " + state["messages"][-1].text)]})
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=[Whole, Delta])
def graph(saver: SQLSaver, request: pytest.FixtureRequest) -> Any:
    return build(saver, request.param)


def on(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


def converse(graph: Any, thread_id: str, *said: str) -> None:
    for each in said:
        graph.invoke({"messages": [HumanMessage(each)], "mood": f"after {each}"}, on(thread_id))


def run(saver: SQLSaver, statement: Any) -> None:
    saver.database.write(lambda transaction: transaction.once(statement))


# Looking back


def test_history(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one", "two")
    found = store.history("a")
    assert [each.checkpoint_id for each in found] == store.checkpoints("a")
    assert [each.number for each in found] == [6, 5, 4, 3, 2, 1]
    assert [each.message_count for each in found] == [4, 3, 2, 2, 1, 0]
    assert [each.last.text if each.last else None for each in found[:3]] == ["re: two", "two", "re: one"]
    assert [each.parent_id for each in found] == [each.checkpoint_id for each in found[1:]] + [None]
    assert (found[-1].source, found[-1].step) == ("input", -1)
    assert [each.created_at for each in found] == sorted((each.created_at for each in found), reverse=True)
    assert [each.number for each in store.history("a", limit=2)] == [6, 5]


def test_checkpoints_by_what_a_person_says(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one")
    ids = store.checkpoints("a")
    assert store.resolve_checkpoint("a", "1") == ids[-1]
    assert store.resolve_checkpoint("a", "latest") == ids[0]
    assert store.resolve_checkpoint("a", ids[1]) == ids[1]
    for wrong, message in (("0", "no checkpoint"), ("4", "numbers 1 to 3"), ("", "no checkpoint")):
        with pytest.raises(ThreadNotFoundError, match=message):
            store.resolve_checkpoint("a", wrong)
    with pytest.raises(ThreadNotFoundError, match="several checkpoints"):
        store.resolve_checkpoint("a", ids[0][:4])


def test_differences(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one")
    before = store.checkpoints("a")[0]
    first, second = store.get("a").messages
    edited = HumanMessage("ONE", id=first.id)
    graph.update_state(on("a"), {"messages": [edited, RemoveMessage(str(second.id))], "mood": "edited"})
    converse(graph, "a", "two")
    after = store.checkpoints("a")[0]
    found = store.diff("a", before, after)
    assert (found.before, found.after) == (before, after)
    assert [each.text for each in found.added] == ["two", "re: two"]
    assert [each.text for each in found.removed] == ["re: one"]
    assert [(old.text, new.text) for old, new in found.changed] == [("one", "ONE")]
    assert found.values == {"mood": ("after one", "after two")}
    back = store.diff("a", after, before)
    assert (len(back.added), len(back.removed)) == (1, 2)
    same = store.diff("a", after, after)
    assert (same.added, same.removed, same.changed, same.values) == ((), (), (), {})
    with pytest.raises(ThreadNotFoundError, match="no checkpoint 'nope'"):
        store.diff("a", before, "nope")


def test_differences_of_arrays(saver: SQLSaver, store: ConversationStore) -> None:
    builder = StateGraph(Scores)
    builder.add_node("score", lambda state: {"other": {"in": state["other"]["in"] + 1}})
    builder.add_edge(START, "score")
    numbers = np.arange(3)
    builder.compile(checkpointer=saver).invoke({"same": numbers, "other": {"in": numbers}}, on("a"))
    after, before, *_ = store.checkpoints("a")
    values = store.diff("a", before, after).values
    assert list(values) == ["other"]
    assert list(values["other"][1]["in"]) == [1, 2, 3]


# Letting go


USED = [("new", "2026-03-01T00:00:00.000000+00:00"), ("mid", "2026-02-01"), ("old", "2026-01-01")]
SIZES = {"new": 50, "mid": 30, "old": 20}


@pytest.mark.parametrize(
    ("conditions", "chosen"),
    [
        ({"keep": 0}, ["new", "mid", "old"]),
        ({"keep": 2}, ["old"]),
        ({"older_than": "2026-02-15"}, ["mid", "old"]),
        ({"older_than": datetime(2026, 1, 15, tzinfo=UTC)}, ["old"]),
        ({"older_than": timedelta(days=36_000)}, []),
        ({"max_bytes": 100}, []),
        ({"max_bytes": 99}, ["old"]),
        ({"max_bytes": 79}, ["mid", "old"]),
        ({"max_bytes": 0}, ["new", "mid", "old"]),
        ({"max_bytes": 0, "keep": 1, "older_than": "2026-01-15"}, ["old"]),
    ],
)
def test_which_are_pruned(conditions: dict[str, Any], chosen: list[str]) -> None:
    given: dict[str, Any] = {"older_than": None, "keep": None, "max_bytes": None} | conditions
    assert choose(USED, sizes=SIZES, **given) == chosen


@pytest.mark.parametrize("conditions", [{}, {"keep": -1}, {"max_bytes": -1}])
def test_what_nothing_can_meet(store: ConversationStore, conditions: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="prune"):
        store.prune(**conditions)


def test_pruning_by_size(graph: Any, store: ConversationStore) -> None:
    converse(graph, "large", "x" * 20_000)
    converse(graph, "small", "y")
    assert store.prune(max_bytes=10_000, dry_run=True) == ["large"]
    assert len(store.list()) == 2
    assert store.prune(max_bytes=10_000) == ["large"]
    assert [each.id for each in store.list()] == ["small"]


# Moving


def test_to_the_other_kind_of_database_and_back(
    graph: Any, saver: SQLSaver, tmp_path: Path, postgres_url: str
) -> None:
    other = postgres_url if saver.database.dialect == "sqlite" else str(tmp_path / "other.sqlite")
    store = ConversationStore(saver)
    converse(graph, "a", "one", "two")
    converse(graph, "b", "a recipe")
    store.tag("a", "work")
    store.rename("a", "Numbers")
    row = {"thread_id": "a", "call_id": "c", "tool": "pay", "status": "started", "attempts": 1}
    run(saver, insert(tool_calls).values(**row, started_at="2026-01-01", owner="elsewhere:1"))
    with open_checkpointer(other) as second, open_checkpointer(tmp_path / "third.sqlite") as third:
        moved = store.copy_to(ConversationStore(second))
        assert (moved.copied, moved.skipped) == (("a", "b"), ())
        assert store.copy_to(ConversationStore(second)).skipped == ("a", "b")
        assert ConversationStore(second).copy_to(ConversationStore(third)).copied == ("a", "b")
        expected = [snapshot.values for snapshot in graph.get_state_history(on("a"))]
        for each in (second, third):
            copy = ConversationStore(each)
            assert copy.list() == store.list()
            again = build(each, graph.builder.state_schema)
            assert [snapshot.values for snapshot in again.get_state_history(on("a"))] == expected
            assert [found.id for found in copy.search("recipe")] == ["b", "b"]
            assert len(list(each.list(None, filter={"source": "input"}))) == 3
            converse(again, "a", "three")
            assert copy.doctor() == []
            calls = each.database.read(lambda transaction: transaction.once(tool_calls.select()))
            assert [call[2] for call in calls] == ["pay"]


def test_encrypted_and_plain_are_not_mixed(store: ConversationStore, tmp_path: Path) -> None:
    class Cipher:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "none", plaintext

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return ciphertext

    opening = open_checkpointer(tmp_path / "secret.sqlite", cipher=Cipher())
    with opening as secret, pytest.raises(ConfigurationError, match="cipher"):
        store.copy_to(ConversationStore(secret))


def test_nothing_is_copied_to_where_another_key_could_not_read_it(where: str, tmp_path: Path) -> None:
    first = open_checkpointer(where, encryption_key="1" * 32)
    second = open_checkpointer(tmp_path / "second.sqlite", encryption_key="2" * 32)
    third = open_checkpointer(tmp_path / "third.sqlite", encryption_key="1" * 32)
    with first as one, second as two, third as three:
        converse(build(one, Whole), "a", "hello")
        store = ConversationStore(one)
        with pytest.raises(ConfigurationError, match="another key"):
            store.copy_to(ConversationStore(two))
        assert ConversationStore(two).list() == []
        assert store.copy_to(ConversationStore(three)).copied == ("a",)
        assert len(ConversationStore(three).get("a").messages) == 2
        converse(build(one, Whole), "damaged", "hello")
        run(one, update(checkpoints).where(checkpoints.c.thread_id == "damaged").values(body=b"x"))
        assert store.copy_to(ConversationStore(three)).copied == ("damaged",)


# Mending


def test_a_sound_database(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one " * 50, "two")
    store.fork("a", checkpoint_id=store.checkpoints("a")[2])
    store.rewind("a", store.checkpoints("a")[1])
    store.search("one")
    assert [each.kind for each in store.doctor() if each.is_wrong] == []
    for each in store.list():  # the copy was cut at a question as well
        graph.invoke(None, on(each.id))
    assert store.doctor() == []


@pytest.mark.parametrize("mend", [False, True])
def test_one_that_is_deleted_meanwhile(
    graph: Any, store: ConversationStore, mend: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    converse(graph, "a", "hello")

    def orphans(database: Any, *, mend: bool) -> list[Any]:
        monkeypatch.setattr(type(database), "read", deleting)
        return []

    def deleting(database: Any, work: Any) -> Any:
        monkeypatch.undo()
        found = database.read(work)  # the list
        store.delete("a")
        return found

    monkeypatch.setattr("agent.persistence.checkup._orphans", orphans)
    assert store.doctor(mend=mend) == []


def test_rows_that_belong_to_nothing(graph: Any, saver: SQLSaver, store: ConversationStore) -> None:
    converse(graph, "a", "one")
    run(saver, insert(thread_tags).values(thread_id="gone", tag="work"))
    assert [(each.kind, each.is_wrong) for each in store.doctor()] == [("orphans", True)]
    assert [(each.kind, each.mended) for each in store.doctor(mend=True)] == [("orphans", True)]
    assert store.doctor() == []
    assert len(store.get("a").messages) == 2


def test_a_list_that_is_behind(graph: Any, saver: SQLSaver, store: ConversationStore) -> None:
    converse(graph, "a", "one")
    run(saver, update(threads).values(head_id="earlier", status="unfinished"))
    assert [each.kind for each in store.doctor(mend=True)][:1] == ["list"]
    assert store.doctor() == []
    assert store.list()[0].status == "idle"


@pytest.mark.parametrize("table", [channels, items])
def test_lost_values_are_named(saver: SQLSaver, store: ConversationStore, table: Any) -> None:
    converse(build(saver, Whole), "a", "one " * 50, "two " * 50)
    converse(build(saver, Whole), "b", "three")
    run(saver, delete(table).where(table.c.thread_id == "a", table.c.channel == "messages"))
    problems = store.doctor()
    assert {(each.kind, each.thread_id) for each in problems} == {("damaged", "a")}
    assert all("lost" in each.what or "missing" in each.what for each in problems)
    assert all(each.is_wrong for each in store.doctor(mend=True))


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x05", b"\x93\xc2\x01\xc4\x00"])
def test_a_damaged_list_is_named(saver: SQLSaver, store: ConversationStore, value: bytes) -> None:
    converse(build(saver, Whole), "a", "one " * 50)
    run(saver, update(channels).where(channels.c.type == "list").values(value=value))
    assert [(each.kind, each.thread_id) for each in store.doctor()] == [("damaged", "a")]
    with pytest.raises(DatabaseError, match="damaged"):
        store.get("a")


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_damaged_metadata_is_named(saver: SQLSaver, store: ConversationStore) -> None:
    converse(build(saver, Whole), "a", "one")
    run(saver, text("UPDATE checkpoints SET metadata = substr(metadata, 1, 5)"))
    assert [(each.kind, each.thread_id) for each in store.doctor()] == [("damaged", "a")]


def test_calls_without_an_answer_and_without_a_known_outcome(
    graph: Any, saver: SQLSaver, store: ConversationStore
) -> None:
    call = {"name": "pay", "args": {}, "id": "c1"}
    graph.update_state(on("a"), {"messages": [HumanMessage("go"), AIMessage("", tool_calls=[call])]}, "echo")
    row = {"thread_id": "a", "call_id": "c1", "tool": "pay", "status": "started", "attempts": 1}
    import socket

    gone = f"{socket.gethostname()}:{2**22 + 1}"  # above the largest process id there can be
    run(saver, insert(tool_calls).values(**row, started_at="2026-01-01", owner=gone))
    problems = {each.kind: each.what for each in store.doctor() if not each.is_wrong}
    assert "pay" in problems["unknown"]
    assert "pay" in problems["unanswered"]


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_a_search_index_that_does_not_fit(graph: Any, saver: SQLSaver, store: ConversationStore) -> None:
    converse(graph, "a", "the capital of France")
    assert store.search("capital")
    run(saver, text("DROP TRIGGER message_texts_removed"))
    run(saver, text("DELETE FROM message_texts WHERE position = 0"))
    assert [each.kind for each in store.doctor()] == ["search"]
    assert [each.mended for each in store.doctor(mend=True)] == [True]
    assert store.doctor() == []
    assert [found.position for found in store.search("capital")] == [1]


def keep_a_damaged_one(saver: SQLSaver) -> None:
    """Two conversations, of which one cannot be read."""
    graph = build(saver, Whole)
    converse(graph, "sound", "pineapple " * 20)
    converse(graph, "damaged", "pineapple " * 20)
    run(saver, update(items).where(items.c.thread_id == "damaged").values(value=b"\xc1"))


def test_a_damaged_conversation_hides_no_other_from_searching(
    saver: SQLSaver, store: ConversationStore, caplog: pytest.LogCaptureFixture
) -> None:
    keep_a_damaged_one(saver)
    assert {each.id for each in store.search("pineapple")} == {"sound"}
    assert "conversation 'damaged' cannot be searched" in caplog.text


def test_a_damaged_conversation_hides_no_other_from_the_list(
    saver: SQLSaver, store: ConversationStore, caplog: pytest.LogCaptureFixture
) -> None:
    keep_a_damaged_one(saver)
    run(saver, update(threads).values(messages=None))
    assert {each.id: each.message_count > 0 for each in store.list()} == {"sound": True, "damaged": False}
    assert "conversation 'damaged' cannot be counted" in caplog.text


@pytest.mark.parametrize("value", [[1, 2], [{"text": "hi"}], {"to": "all"}, 5, [("cat", "meow")]])
def test_messages_of_another_kind_hide_no_conversation(
    saver: SQLSaver, store: ConversationStore, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    converse(build(saver, Whole), "usual", "pineapple")
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"messages": value, "mood": "own"}
    checkpoint["channel_versions"] = {"messages": "1", "mood": "1"}
    config: Any = {"configurable": {"thread_id": "own", "checkpoint_ns": ""}}
    saver.put(config, checkpoint, {"source": "loop"}, checkpoint["channel_versions"])
    assert {each.id for each in store.list()} == {"usual", "own"}
    assert [each.id for each in store.search("pineapple")] == ["usual", "usual"]
    assert "conversation 'own' cannot be searched" in caplog.text
    assert store.doctor() == []
    for look in (store.get, store.history, store.export):
        with pytest.raises(PersistenceError, match="'messages' of this conversation are none that LangChain"):
            look("own")


def test_a_damaged_conversation_keeps_no_other_from_being_pruned(
    saver: SQLSaver, store: ConversationStore
) -> None:
    for name in ("a", "damaged", "z"):
        converse(build(saver, Whole), name, "one", "two")
    run(saver, update(checkpoints).where(checkpoints.c.thread_id == "damaged").values(body=b"\xc1"))
    with pytest.raises(PersistenceError, match="conversation 'damaged' keeps its history"):
        store.prune(keep=0, history_only=True)
    assert [len(store.checkpoints(name)) for name in ("a", "damaged", "z")] == [1, 6, 1]
    saver.database.outside_transaction("DROP TABLE writes")
    with pytest.raises(DatabaseError, match="writes"):
        store.prune(keep=0, history_only=True)
