"""What a person does with conversations: list, find, rename, tag, fork, rewind, export, delete."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_to_dict,
)
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from agent.errors import ConfigurationError, ConflictError, ThreadNotFoundError
from agent.persistence import ConversationStore, SQLSaver, list_conversations
from agent.persistence.transcripts import merged


def fold(messages: list[Any], written: list[Any]) -> list[Any]:
    for each in written:
        messages = add_messages(messages, each)
    return messages


class Whole(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Delta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold)]


@pytest.fixture(params=[Whole, Delta])
def graph(saver: SQLSaver, request: pytest.FixtureRequest) -> Any:
    builder = StateGraph(request.param)
    builder.add_node("echo", lambda state: {"messages": [AIMessage("re: " + state["messages"][-1].text)]})
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


def converse(graph: Any, thread_id: str, *said: str) -> None:
    for text in said:
        graph.invoke({"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": thread_id}})


def test_nothing_yet(store: ConversationStore) -> None:
    assert store.list() == []
    assert store.latest() is None
    assert store.search("anything") == []
    with pytest.raises(ThreadNotFoundError, match="There is none yet"):
        store.get("x")


def test_list_is_newest_first_and_paged(graph: Any, store: ConversationStore) -> None:
    for name in ("a", "b", "c", "d"):
        converse(graph, name, f"question {name}")
    converse(graph, "b", "more", "and more")
    listed = store.list()
    assert [each.id for each in listed] == ["b", "d", "c", "a"]
    assert [each.message_count for each in listed] == [6, 2, 2, 2]
    assert [each.title for each in listed] == [f"question {each.id}" for each in listed]
    assert {each.status for each in listed} == {"idle"}
    assert all(each.created_at <= each.updated_at for each in listed)
    assert [each.id for each in store.list(limit=2, offset=1)] == ["d", "c"]
    assert store.latest() == listed[0]


def test_listing_reads_no_history(graph: Any, saver: SQLSaver, store: ConversationStore) -> None:
    converse(graph, "a", "x" * 300, "y")
    saver.database.write(lambda transaction: transaction.once(_damage()))
    [listed] = store.list()
    assert (listed.message_count, listed.title) == (4, "x" * 79 + "…")


def _damage() -> Any:
    from agent.persistence.tables import checkpoints

    return checkpoints.update().values(body=b"\xc1")


def test_get_now_and_earlier(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one", "two")
    now = store.get("a")
    assert [message.text for message in now.messages] == ["one", "re: one", "two", "re: two"]
    assert now.checkpoint_id == store.checkpoints("a")[0]
    lengths = [len(store.get("a", checkpoint_id=each).messages) for each in store.checkpoints("a")]
    assert lengths == sorted(lengths, reverse=True)
    assert set(lengths) == {0, 1, 2, 3, 4}
    with pytest.raises(ThreadNotFoundError, match="no checkpoint 'nope'"):
        store.get("a", checkpoint_id="nope")


def test_prefixes(graph: Any, store: ConversationStore) -> None:
    for name in ("abc-1", "abc-2", "abc", "xyz%"):
        converse(graph, name, "hello")
    assert store.resolve("xy") == "xyz%"
    assert store.resolve("abc-2") == "abc-2"
    assert store.resolve("abc") == "abc"
    with pytest.raises(ThreadNotFoundError, match="several conversations: abc, abc-1, abc-2"):
        store.resolve("ab")
    with pytest.raises(ThreadNotFoundError, match="Did you mean abc-"):
        store.resolve("abd-1")
    for nothing in ("", "%", "_"):
        with pytest.raises(ThreadNotFoundError):
            store.resolve(nothing)


def test_prefixes_in_capitals_are_others(graph: Any, store: ConversationStore) -> None:
    for name in ("ABC-1", "ABC-2", "ABC-3", "ABC-4", "abc", "Über"):
        converse(graph, name, "hello")
    assert store.resolve("abc") == "abc"
    assert store.resolve("Üb") == "Über"
    with pytest.raises(ThreadNotFoundError):
        store.delete("abc-1")
    store.delete("abc")
    with pytest.raises(ThreadNotFoundError):
        store.delete("abc")
    assert len(store.list()) == 5


def test_titles(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "  what\n is   this? ")
    assert store.get("a").title == "what is this?"
    store.rename("a", "My   title")
    converse(graph, "a", "more")
    assert store.list()[0].title == "My title"
    store.rename("a", "")
    assert store.list()[0].title == "what is this?"


def test_tags(graph: Any, store: ConversationStore) -> None:
    for name in ("a", "b"):
        converse(graph, name, "hello")
    store.tag("a", "work", "urgent")
    store.tag("a", "work")
    assert store.get("a").tags == ("urgent", "work")
    assert [each.id for each in store.list(tag="work")] == ["a"]
    store.untag("a", "work")
    assert store.list(tag="work") == []


def test_search(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "the capital of France", "and of Österreich?")
    converse(graph, "b", "a recipe for soup")
    assert {(each.id, each.position, each.role) for each in store.search("capital FRANCE")} == {
        ("a", 0, "human"),
        ("a", 1, "ai"),
    }
    assert {each.id for each in store.search("osterr")} == {"a"}
    assert store.search("capital soup") == []
    converse(graph, "b", "with capital letters")
    assert {each.id for each in store.search("capital")} == {"a", "b"}
    store.delete("a")
    assert {each.id for each in store.search("capital")} == {"b"}
    assert "recipe" in store.search("recipe")[0].excerpt


def test_search_for_words_with_quotes_in_them(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "I don't say that l'été is in C:\\tmp")
    for words in ("don't", "l'été", "say'", '"don\'t say"', "C:\\tmp", "''tmp"):
        assert {each.id for each in store.search(words)} == {"a"}, words
    assert store.search("'") == []


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_delete_is_for_good(tmp_path: Path, graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "my password is swordfish")
    converse(graph, "b", "hello")
    store.search("swordfish")
    store.tag("a", "swordfish-tag")
    store.delete("a", vacuum=True)
    with pytest.raises(ThreadNotFoundError):
        store.get("a")
    assert [each.id for each in store.list()] == ["b"]
    store._database.outside_transaction("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in tmp_path.iterdir():
        assert b"swordfish" not in file.read_bytes(), file


def test_fork_now_and_earlier(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one", "two")
    copy = store.fork("a")
    early = next(
        each for each in store.checkpoints("a") if len(store.get("a", checkpoint_id=each).messages) == 2
    )
    store.fork("a", checkpoint_id=early, new_id="early")
    converse(graph, "early", "another")
    assert [m.text for m in store.get("early").messages] == ["one", "re: one", "another", "re: another"]
    assert [m.text for m in store.get(copy).messages] == [m.text for m in store.get("a").messages]
    assert store.get("early").status == "idle"
    assert {found.id for found in store.search("two")} == {"a", copy}
    again = store.fork("a")  # of one that is indexed
    assert {found.id for found in store.search("two")} == {"a", copy, again}
    with pytest.raises(ConflictError):
        store.fork("a", new_id="early")
    with pytest.raises(ThreadNotFoundError, match="no checkpoint"):
        store.fork("a", checkpoint_id="nope")


def test_rewind(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one", "two", "three")
    early = next(
        each for each in store.checkpoints("a") if len(store.get("a", checkpoint_id=each).messages) == 2
    )
    store.rewind("a", early)
    assert store.checkpoints("a")[0] == early
    assert store.list()[0].message_count == 2
    converse(graph, "a", "again")
    assert [m.text for m in store.get("a").messages] == ["one", "re: one", "again", "re: again"]


def test_one_that_is_cut_at_its_question_has_still_to_answer_it(graph: Any, store: ConversationStore) -> None:
    converse(graph, "a", "one")
    question = store.checkpoints("a")[-1]
    copy = store.fork("a", checkpoint_id=question)
    store.rewind("a", question)
    assert [each.status for each in store.list()] == ["unfinished", "unfinished"]
    for thread in ("a", copy):
        graph.invoke(None, {"configurable": {"thread_id": thread}})
        assert [message.text for message in store.get(thread).messages] == ["one", "re: one"]
        assert store.get(thread).status == "idle"


def test_prune(graph: Any, store: ConversationStore) -> None:
    for name in ("a", "b", "c"):
        converse(graph, name, "one", "two")
    assert store.prune(keep=3, history_only=True) == []
    assert store.prune(older_than="9999-01-01", history_only=True) == ["c", "b", "a"]
    assert [len(store.get(name).messages) for name in "abc"] == [4, 4, 4]
    assert store.prune(older_than="0001-01-01") == []
    assert store.prune(keep=1) == ["b", "a"]
    assert [each.id for each in store.list()] == ["c"]
    with pytest.raises(ConfigurationError, match="prune what"):
        store.prune()


def test_size(graph: Any, store: ConversationStore) -> None:
    converse(graph, "small", "x")
    converse(graph, "large", "x" * 50_000)
    size = store.size()
    assert size.conversations == 2
    assert size.checkpoints == len(store.checkpoints("small")) + len(store.checkpoints("large"))
    assert size.bytes_on_disk > 50_000
    assert [thread_id for thread_id, _ in size.largest] == ["large", "small"]
    assert size.largest[0][1] > 50_000


SAID = [
    SystemMessage("be brief"),
    HumanMessage("2+2? 😀"),
    AIMessage("", tool_calls=[{"name": "calculator", "args": {"expression": "2+2"}, "id": "c1"}]),
    ToolMessage("4 ```", tool_call_id="c1", name="calculator"),
    AIMessage("It is 4."),
]


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_export_and_import_again(graph: Any, store: ConversationStore, format: str) -> None:
    graph.update_state({"configurable": {"thread_id": "a"}}, {"messages": SAID})
    store.rename("a", "Sums")
    again = store.import_(store.export("a", format=format))
    original, imported = store.get("a"), store.get(again)
    assert imported.messages == original.messages
    assert imported.title == ("Sums" if format == "json" else "2+2? 😀")
    converse(graph, again, "and 3+3?")
    assert store.get(again).messages[-1].text == "re: and 3+3?"
    with pytest.raises(ConflictError, match="already"):
        store.import_(store.export("a", format=format), new_id=again)


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_separators_of_lines_in_a_text_come_back(saver: SQLSaver, format: str) -> None:
    store, said = ConversationStore(saver), [HumanMessage("a\u2028b\u2029c\x85d\x0be"), AIMessage("f")]
    again = store.import_("".join(json.dumps(message_to_dict(each)) + "\r\n" for each in said))
    again = store.import_(store.export(again, format=format))
    assert [message.text for message in store.get(again).messages] == [each.text for each in said]


def test_export_markdown(graph: Any, store: ConversationStore) -> None:
    graph.update_state({"configurable": {"thread_id": "a"}}, {"messages": SAID})
    text = store.export("a")
    for part in (
        "# 2+2? 😀",
        "## You",
        "## Assistant",
        "## Tool result (calculator)",
        "`calculator` (c1)",
        "````\n4 ```",
    ):
        assert part in text
    assert json.loads(store.export("a", format="json"))["messages"][1]["data"]["content"] == "2+2? 😀"
    with pytest.raises(ConfigurationError, match="'pdf': use markdown, json, jsonl"):
        store.export("a", format="pdf")
    dated = AIMessage("", tool_calls=[{"name": "f", "args": {"on": date(2026, 1, 2)}, "id": "c"}])
    graph.update_state({"configurable": {"thread_id": "dated"}}, {"messages": [dated]})
    for format in ("markdown", "json", "jsonl"):
        assert "2026-01-02" in store.export("dated", format=format)


@pytest.mark.parametrize(
    "bad",
    [
        "[" * 100_000,
        '{"type": "human"}\n' + "[" * 100_000,
        "",
        "hello",
        "[]",
        "{}",
        '{"messages": 1}',
        '{"format": 9, "messages": []}',
        "1",
        '{"type": "x"}',
    ],
)
def test_import_of_something_else(store: ConversationStore, bad: str) -> None:
    with pytest.raises(ConfigurationError):
        store.import_(bad)


@pytest.mark.parametrize(
    "written",
    [
        HumanMessage("new", id="3"),
        [HumanMessage("changed", id="1"), HumanMessage("new")],
        [RemoveMessage("1"), HumanMessage("back", id="1")],
        [RemoveMessage("0"), RemoveMessage("2")],
        [RemoveMessage("__remove_all__"), HumanMessage("fresh", id="9")],
        ("user", "as a pair"),
        {"role": "user", "content": "as a dict"},
    ],
)
def test_messages_merge_as_langgraph_merges_them(written: Any) -> None:
    messages = [HumanMessage(str(n), id=str(n)) for n in range(3)]
    expected = add_messages(list(messages), [written] if isinstance(written, tuple) else written)
    found = merged(messages, written if not isinstance(written, tuple) else [written])
    assert [(m.type, m.text) for m in found] == [(m.type, m.text) for m in expected]  # type: ignore[union-attr]


def test_listing_without_opening(where: str, graph: Any, saver: SQLSaver, store: ConversationStore) -> None:
    for name in ("a", "b"):
        converse(graph, name, f"question {name}")
    store.tag("a", "work")
    assert list_conversations(where) == store.list()
    assert [each.id for each in list_conversations(where, tag="work")] == ["a"]
    store.fork("a", checkpoint_id=store.checkpoints("a")[0], new_id="c")  # its count is unknown until asked
    assert [each.message_count for each in list_conversations(where)] == [2, 2, 2]


def test_listing_imports_no_langgraph(tmp_path: Path) -> None:
    code = (
        "import sys; from agent.persistence import list_conversations\n"
        f"assert list_conversations({str(tmp_path / 'c.sqlite')!r}) == []\n"
        "assert not {'langgraph', 'langchain_core', 'alembic'} & {name.split('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], timeout=120)
