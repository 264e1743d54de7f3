"""The reducer of the state gives what ``add_messages`` gives, and leaves alone what need not be walked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from graph_doubles import ScriptedModel
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages

from graphs import build_react_graph, state
from graphs.state import joined
from graphs.turn import open_calls

IDS = st.sampled_from(["a", "b", "c", "d", "e"])
MESSAGES: Any = st.one_of(
    st.builds(lambda id, text: HumanMessage(text, id=id), IDS, st.text(max_size=3)),
    st.builds(lambda id, text: AIMessage(text, id=id), IDS, st.text(max_size=3)),
    st.builds(lambda id: ToolMessage("r", tool_call_id="t", id=id), IDS),
    st.builds(lambda id: SystemMessage("s", id=id), IDS),
)
WRITES = st.one_of(
    MESSAGES,
    IDS.map(lambda id: RemoveMessage(id=id)),
    st.just(RemoveMessage(id=REMOVE_ALL_MESSAGES)),
    st.builds(lambda id: AIMessageChunk("part", id=id), IDS),
    st.builds(lambda id: {"role": "user", "content": "hi", "id": id}, IDS),
)
STORED = st.lists(MESSAGES, max_size=5, unique_by=lambda message: message.id)


def outcome(reduce: Any, stored: Any, written: Any) -> Any:
    try:
        return [message.model_dump() for message in reduce(copy.deepcopy(stored), copy.deepcopy(written))]
    except ValueError as error:
        return str(error)


@given(stored=STORED, written=st.one_of(st.lists(WRITES, max_size=3), WRITES))
def test_it_is_add_messages(stored: list[BaseMessage], written: Any) -> None:
    assert outcome(joined, stored, written) == outcome(add_messages, stored, written)


def test_messages_without_an_id_get_one_each() -> None:
    result = joined([HumanMessage("a", id="a")], [AIMessage("b"), AIMessage("c")])
    assert len({message.id for message in result} - {None}) == 3


@pytest.mark.parametrize("written", ["hi", ("user", "hi"), [("user", "hi")]], ids=repr)
def test_what_is_no_message_yet_becomes_one(written: Any) -> None:
    assert [message.text for message in joined([], written)][-1] == "hi"


def test_stored_messages_without_an_id_get_one() -> None:
    assert all(message.id for message in joined([HumanMessage("a")], [AIMessage("b", id="b")]))


def test_new_messages_are_not_merged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "add_messages", lambda *_: pytest.fail("walked everything"))
    stored = [HumanMessage("a", id="a")]
    result = joined(stored, [AIMessage("b", id="b")])
    assert [message.id for message in result] == ["a", "b"]
    assert result is not stored
    assert result[0] is stored[0]


def test_calls_are_open_until_a_result_stands_behind_them() -> None:
    call = {"name": "f", "args": {}, "id": "c1"}
    before: list[BaseMessage] = [ToolMessage("old", tool_call_id="c1", id="t0"), HumanMessage("go", id="h")]
    asked = [*before, AIMessage("", tool_calls=[call], id="a")]
    assert [each["id"] for each in open_calls(asked)] == ["c1"]
    assert open_calls([*asked, ToolMessage("new", tool_call_id="c1", id="t1")]) == []


def test_an_answer_under_the_id_of_an_older_one_replaces_nothing(run):
    """Ollama, for one, draws the ids of its answers from a thousand."""
    model = ScriptedModel(script=[AIMessage(text, id="chatcmpl-7") for text in ("first", "second")])
    graph = build_react_graph(model=model, checkpointer=InMemorySaver())
    run(graph, "one")
    assert [message.text for message in run(graph, "two")["messages"]] == ["one", "first", "two", "second"]
