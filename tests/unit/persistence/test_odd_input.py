"""What no plan foresaw: half characters, huge numbers, and settings that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, message_to_dict
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from pydantic import BaseModel
from sqlalchemy import text

from agent import ChatVLLM
from agent.engines import Reply, ScriptedEngine
from agent.errors import ConfigurationError, DatabaseError, PersistenceError
from agent.persistence import ConversationStore, SQLSaver, open_checkpointer
from agent.persistence.records import storable
from agent.persistence.serde import StrictSerializer
from agent.persistence.transcripts import add_messages
from graphs import build_react_graph
from tools import tool

HALF = "\ud83d"  # the first half of 😀, which is what a cut-off escape in a model's JSON comes to
HUGE = 10**30 + 7
ON: Any = {"configurable": {"thread_id": "t"}}


# -- what is asked of a store and a saver -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda store: store.search(5), "words=5: give a text"),
        (lambda store: store.search("a", limit="x"), "limit='x': give a whole number"),
        (lambda store: store.list(limit=-1), "limit=-1"),
        (lambda store: store.list(offset=1.5), "offset=1.5"),
        (lambda store: store.list(tag=""), "tag=''"),
        (lambda store: store.history("t", limit=None), "limit=None"),
        (lambda store: store.rename("t", 5), "title=5"),
        (lambda store: store.tag("t", "good", " "), "tag=' ': a tag has at least one character"),
        (lambda store: store.untag("t", 5), "tag=5"),
        (lambda store: store.import_(5), "document=5"),
        (lambda store: store.import_(" \n"), "there is nothing in it"),
        (lambda store: store.import_('{"messages": [], "title": 5}'), "title=5"),
        (lambda store: store.import_('{"messages": [], "tags": ["good", ""]}'), "tag=''"),
        (lambda store: ConversationStore(5), "give the saver of open_checkpointer"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_no_store_can_do(saver: SQLSaver, ask: Callable[[Any], Any], says: str) -> None:
    store = ConversationStore(saver)
    add_messages(saver, "t", [HumanMessage("hello")])
    before = store.export("t", format="json")
    with pytest.raises(ConfigurationError, match=says):
        ask(store)
    assert [found.id for found in store.list()] == ["t"]
    assert store.export("t", format="json") == before


@pytest.mark.parametrize("config", [{}, None, {"configurable": None}, {"configurable": {"thread_id": None}}])
async def test_a_config_that_names_no_conversation(saver: SQLSaver, config: Any) -> None:
    checkpoint = empty_checkpoint()
    for call in (
        lambda: saver.get_tuple(config),
        lambda: saver.put(config, checkpoint, {}, {}),
        lambda: saver.put_writes(config, [("messages", [])], "task"),
        lambda: [*saver.list(config or {})],
    ):
        with pytest.raises(ConfigurationError, match=r"names no conversation: .*give .*thread_id"):
            call()
    with pytest.raises(ConfigurationError, match="names no conversation"):
        await saver.aput(config, checkpoint, {}, {})
    with pytest.raises(ConfigurationError, match="belong to a checkpoint"):
        saver.put_writes(ON, [("messages", [])], "task")


# -- what people and models write ---------------------------------------------------------------------------


def test_half_characters_are_replaced_and_end_no_conversation(saver: SQLSaver) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("echo", lambda state: {"messages": [AIMessage(f"re: {state['messages'][-1].text}")]})
    builder.add_edge(START, "echo")
    said = {"messages": [HumanMessage(f"hello {HALF} world")]}
    builder.compile(checkpointer=saver).invoke(said, {**ON, "metadata": {"from": HALF}})
    store = ConversationStore(saver)
    assert store.list()[0].title == "hello ? world"
    assert [message.text for message in store.get("t").messages] == ["hello ? world", "re: hello ? world"]
    assert [found.position for found in store.search("hello")] == [0, 1]
    assert store.import_(store.export("t", format="json"))
    for format in ("markdown", "json", "jsonl"):
        store.export("t", format=format).encode()


def test_metadata_with_what_json_lacks(saver: SQLSaver) -> None:
    checkpoint = empty_checkpoint()
    described: Any = {
        "score": float("nan"),
        "more": {"all": [float("-inf"), 0.5], "text": "a\0b", "kept": "\\u0000"},
    }
    saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, checkpoint, described, {})
    expected = {"score": None, "more": {"all": [None, 0.5], "text": "a b", "kept": "\\u0000"}}
    for wanted in ({"more.text": "a b"}, {"score": None}):
        assert [each.metadata for each in saver.list(None, filter=wanted)] == [expected]


@tool
def add(a: int, b: int, note: str) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
        note: Anything.
    """
    return a + b


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_call_with_huge_numbers_and_half_characters_is_run_once(
    saver: SQLSaver, asynchronous: bool
) -> None:
    call = {"name": "add", "arguments": {"a": HUGE, "b": -HUGE * 2, "note": HALF}}
    model = ChatVLLM(engine=ScriptedEngine([Reply(tool_calls=[call]), "done"]))
    graph = build_react_graph(model=model, tools=[add], checkpointer=saver)
    asked = {"messages": [HumanMessage("add")]}
    state = await graph.ainvoke(asked, ON) if asynchronous else graph.invoke(asked, ON)
    assert state["messages"][-1].text == "done"
    _, calling, result, _ = ConversationStore(saver).get("t").messages
    assert isinstance(calling, AIMessage)
    assert isinstance(result, ToolMessage)
    assert calling.tool_calls[0]["args"] == {"a": HUGE, "b": -HUGE * 2, "note": "?"}
    assert result.text == str(-HUGE)
    entries = await saver.journal.aentries(thread_id="t")
    assert [entry.attempts for entry in entries.values()] == [1]


class Kept(BaseModel):
    number: int


@pytest.mark.parametrize(
    "value",
    [HUGE, -HUGE, [HUGE], {"a": {"b": HUGE}}, [Send("node", {"a": HUGE})], [AIMessage("x", id=str(HUGE))]],
    ids=str,
)
def test_huge_numbers_come_back(value: Any) -> None:
    serializer = StrictSerializer()
    found = serializer.loads_typed(serializer.dumps_typed(value))
    assert found == value
    assert type(found) is type(value)


def test_huge_numbers_inside_of_objects_come_back() -> None:
    serializer = StrictSerializer(allowed_types=[Kept])
    assert serializer.loads_typed(serializer.dumps_typed([Kept(number=HUGE)])) == [Kept(number=HUGE)]


@pytest.mark.parametrize(
    "value", [object(), lambda: None, {"a": [range(3)]}, 10**5000], ids=lambda v: type(v).__name__
)
def test_what_cannot_be_stored_is_said(value: Any) -> None:
    with pytest.raises(PersistenceError, match="cannot be stored"):
        StrictSerializer().dumps_typed(value)


def test_an_id_that_is_no_text_is_an_error_and_a_number_is_its_digits(saver: SQLSaver) -> None:
    store = ConversationStore(saver)
    with pytest.raises(DatabaseError, match="surrogate"):
        store.get(HALF)
    thread: Any = 17
    store.import_(store_document(), new_id="17")
    assert store.get(thread).id == "17"
    assert store.title("no such conversation") is None


def store_document() -> str:
    return '{"format": 1, "messages": [{"type": "human", "data": {"content": "hi"}}]}'


# -- pruning: a wrong condition is never one that everything meets ------------------------------------------


@pytest.mark.parametrize(
    "conditions",
    [
        {"older_than": "yesterday"},
        {"older_than": "2026-13-45"},
        {"older_than": ""},
        {"older_than": 5},
        {"older_than": timedelta(days=-1)},
        {"older_than": timedelta.max},
        {"older_than": datetime.min},
        {"keep": "all"},
        {"keep": 1.5},
        {"keep": True},
        {"max_bytes": float("nan")},
        {"max_bytes": "5MB"},
    ],
    ids=str,
)
def test_a_wrong_condition_prunes_nothing(tmp_path: Path, conditions: dict[str, Any]) -> None:
    with open_checkpointer(tmp_path / "c.sqlite") as saver:
        store = ConversationStore(saver)
        store.import_(store_document())
        with pytest.raises(ConfigurationError, match=f"prune {next(iter(conditions))}="):
            store.prune(**conditions)
        assert len(store.list()) == 1


# -- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout": -1}, "timeout=-1"),
        ({"timeout": "long"}, "timeout='long'"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"connections": 0}, "connections=0"),
        ({"connections": 2.5}, "connections=2.5"),
        ({"connections": "many"}, "connections='many'"),
        ({"allowed_types": 5}, "allowed_types has 5"),
        ({"allowed_types": "abc"}, "allowed_types has 'a'"),
        ({"encryption_key": 5}, "a text or bytes, not int"),
        ({"encryption_key": HALF}, "3 bytes"),
    ],
    ids=str,
)
def test_settings_that_are_none(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_checkpointer(":memory:", **settings)


@pytest.mark.parametrize(
    "where", [5, b"c.sqlite", "a\0b", HALF, "x" * 5000, "~no-such-user/c.sqlite", "sqlite:///a\0b"], ids=repr
)
def test_places_that_are_none(where: Any) -> None:
    with pytest.raises(ConfigurationError, match="no place for conversations"), open_checkpointer(where):
        pass


def test_more_conversations_than_a_statement_has_parameters(where: str) -> None:
    count = 33_000 if "sqlite" in where else 66_000
    with open_checkpointer(where) as saver:
        values = "'t', '2026', '2026', 1, 'idle'"
        numbers = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
            "INSERT INTO threads(thread_id, title, created_at, updated_at, messages, status) "
            f"SELECT 'a' || i, {values} FROM n"
        )
        saver.database.write(lambda transaction: transaction.once(text(numbers)))
        store = ConversationStore(saver)
        store.tag("a7777", "found")
        assert [each.tags for each in store.list(limit=count) if each.tags] == [("found",)]


@pytest.mark.parametrize("odd", [f"x {HALF}", "x\0y"], ids=ascii)
def test_names_that_no_database_takes(store: ConversationStore, odd: str) -> None:
    said = [message_to_dict(HumanMessage("hi"))]
    thread_id = store.import_(json.dumps({"messages": said, "title": odd, "tags": [odd]}))
    [found] = store.list()
    assert (found.title, found.tags) == (storable(odd), (storable(odd),))
    store.rename(thread_id, odd)
    store.untag(thread_id, odd)
    assert store.get(thread_id).tags == ()
    store.tag(thread_id, odd)
    [found] = store.list()
    assert (found.title, found.tags) == (storable(odd), (storable(odd),))


def test_lines_of_several_conversations_are_not_made_into_one(store: ConversationStore) -> None:
    ids = [store.import_(json.dumps({"messages": [message_to_dict(HumanMessage(n))]})) for n in "ab"]
    both = "".join(store.export(each, format="jsonl") for each in ids)
    with pytest.raises(ConfigurationError, match="messages of 2 conversations"):
        store.import_(both)
    assert {each.id for each in store.list()} == set(ids)
