"""The history of a conversation whose messages are kept as deltas: read once, and as if one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Overwrite
from sqlalchemy import delete, update

from agent.persistence import ConversationStore, SQLSaver, open_checkpointer
from agent.persistence.serde import StrictSerializer
from agent.persistence.tables import channels, checkpoints


def fold(messages: list[Any], written: list[Any]) -> list[Any]:
    for each in written:
        messages = each.value if isinstance(each, Overwrite) else add_messages(messages, each)
    return messages


class Rarely(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold, snapshot_frequency=1000)]


class Often(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold, snapshot_frequency=3)]


def build(saver: SQLSaver, state: type) -> Any:
    builder = StateGraph(state)
    builder.add_node("echo", lambda state: {"messages": [AIMessage("re: " + state["messages"][-1].text)]})
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


def on(thread_id: str, checkpoint_id: str | None = None) -> Any:
    named = {"checkpoint_id": checkpoint_id} if checkpoint_id else {}
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}}


def say(graph: Any, *texts: str, at: str | None = None) -> None:
    for text in texts:
        graph.invoke({"messages": [HumanMessage(text)]}, on("t", at))


def in_one_go(store: ConversationStore, **options: int) -> Sequence[Any]:
    return [(each.checkpoint_id, each.message_count, each.last) for each in store.history("t", **options)]


def one_by_one(store: ConversationStore) -> Sequence[Any]:
    each_read = [(each, store.get("t", checkpoint_id=each).messages) for each in store.checkpoints("t")]
    return [(each, len(messages), messages[-1] if messages else None) for each, messages in each_read]


@pytest.fixture(params=[None, "0123456789abcdef"], ids=["plain", "encrypted"])
def saver(where: str, request: pytest.FixtureRequest) -> Iterator[SQLSaver]:
    with open_checkpointer(where, encryption_key=request.param) as opened:
        yield opened


@pytest.fixture(params=[Rarely, Often])
def graph(saver: SQLSaver, request: pytest.FixtureRequest) -> Any:
    return build(saver, request.param)


def change(graph: Any, store: ConversationStore, dice: random.Random) -> None:
    """Do one of the things that become of conversations."""
    at = dice.choice([None, None, *store.checkpoints("t")])
    messages = store.get("t", checkpoint_id=at).messages
    known = [str(each.id) for each in messages if each.id]
    what = dice.choice(["say", "say", "say", "edit", "remove", "replace"])
    if what == "say" or not known:
        say(graph, f"question {dice.random()}", at=at)
    elif what == "edit":
        graph.update_state(on("t", at), {"messages": [HumanMessage("edited", id=dice.choice(known))]})
    elif what == "remove":
        graph.update_state(on("t", at), {"messages": [RemoveMessage(dice.choice(known))]})
    else:
        graph.update_state(on("t", at), {"messages": Overwrite([HumanMessage("all new", id="new")])})


@pytest.mark.parametrize("seed", range(3))
def test_as_one_by_one(graph: Any, store: ConversationStore, seed: int) -> None:
    dice = random.Random(seed)
    say(graph, "begin")
    for _ in range(12):
        change(graph, store, dice)
    expected = one_by_one(store)
    assert in_one_go(store) == expected
    for limit in (1, 2, 5):
        assert in_one_go(store, limit=limit) == expected[:limit]
    store.rewind("t", store.checkpoints("t")[3])
    assert in_one_go(store) == one_by_one(store)
    store.prune(keep=0, history_only=True)
    say(graph, "more")
    assert in_one_go(store) == one_by_one(store)


@pytest.mark.parametrize("state", [Rarely, Often])
def test_of_a_conversation_that_lost_something(
    saver: SQLSaver, store: ConversationStore, state: type
) -> None:
    graph = build(saver, state)
    say(graph, "one", "two", "three", "four")
    ids = store.checkpoints("t")
    say(graph, "a branch", at=ids[6])
    drop = delete(checkpoints).where(checkpoints.c.checkpoint_id == ids[5])
    for statement in (drop, delete(channels).where(channels.c.channel == "messages")):
        saver.database.write(lambda transaction, each=statement: transaction.once(each))
        assert in_one_go(store) == one_by_one(store)


def test_where_ancestors_go_round_in_a_circle(saver: SQLSaver, store: ConversationStore) -> None:
    say(build(saver, Rarely), "one", "two", "three")
    ids = store.checkpoints("t")
    circle = update(checkpoints).where(checkpoints.c.checkpoint_id == ids[5]).values(parent_id=ids[1])
    saver.database.write(lambda transaction: transaction.once(circle))
    expected = one_by_one(store)
    assert in_one_go(store) == expected
    assert in_one_go(store, limit=4) == expected[:4]


def test_each_write_is_read_once(
    saver: SQLSaver, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build(saver, Rarely)

    def decoded() -> int:
        count = 0
        typed, several = StrictSerializer.loads_typed, StrictSerializer.loads_several

        def one(self: StrictSerializer, data: Any) -> Any:
            nonlocal count
            count += 1
            return typed(self, data)

        def more(self: StrictSerializer, stored: Any) -> Any:
            nonlocal count
            count += len(stored)
            return several(self, stored)

        with monkeypatch.context() as patch:
            patch.setattr(StrictSerializer, "loads_typed", one)
            patch.setattr(StrictSerializer, "loads_several", more)
            store.history("t", limit=1000)
        return count

    say(graph, *map(str, range(10)))
    few = decoded()
    say(graph, *map(str, range(10)))
    assert decoded() <= 2 * few
