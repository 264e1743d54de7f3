"""Pruning and searching while others write to the same conversations, on both databases."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint

from agent.errors import ThreadNotFoundError
from agent.persistence import ConversationStore, SQLSaver, maintenance, transcripts


def put(saver: SQLSaver, *said: str, parent: str | None = None) -> str:
    """Store a step of a conversation with these messages."""
    checkpoint, version = empty_checkpoint(), saver.get_next_version(None, None)
    checkpoint["channel_values"] = {"messages": [HumanMessage(each, id=each) for each in said]}
    checkpoint["channel_versions"] = {"messages": version}
    names = {"thread_id": "a", "checkpoint_ns": "", **({"checkpoint_id": parent} if parent else {})}
    stored = saver.put(
        {"configurable": names},
        checkpoint,
        {"source": "loop", "step": 0, "parents": {}},
        {"messages": version},
    )
    return str(stored["configurable"]["checkpoint_id"])


def test_a_step_that_is_stored_while_its_history_is_pruned(
    saver: SQLSaver, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(saver, "one")
    second = put(saver, "one", "two", parent=first)
    step = threading.Thread(target=put, args=(saver, "one", "two", "three"), kwargs={"parent": second})
    versions = maintenance.stored_versions

    def slow(body: Any) -> dict[str, str]:
        if step.ident is None:
            step.start()
            step.join(0.5)
        return versions(body)

    monkeypatch.setattr(maintenance, "stored_versions", slow)
    store.prune(keep=0, history_only=True)
    step.join()
    assert [message.text for message in store.get("a").messages] == ["one", "two", "three"]
    assert store.doctor() == []


def test_two_who_search_at_once(
    saver: SQLSaver, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(saver, "pineapple")
    both, read = threading.Barrier(2), transcripts.messages_at

    def slow(*arguments: Any) -> Any:
        found = read(*arguments)
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one waits, as it should
            both.wait(0.5)
        return found

    monkeypatch.setattr(transcripts, "messages_at", slow)
    searches = [threading.Thread(target=store.search, args=("pineapple",)) for _ in range(2)]
    for each in searches:
        each.start()
    for each in searches:
        each.join()
    assert len(store.search("pineapple")) == 1


def test_a_checkpoint_that_is_pruned_before_the_conversation_goes_back_to_it(
    saver: SQLSaver, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(saver, "one")
    put(saver, "one", "two", parent=first)
    monkeypatch.setattr(store, "_require", lambda thread_id, _: saver.prune([thread_id]))
    with pytest.raises(ThreadNotFoundError, match="any more"):
        store.rewind("a", first)
    assert len(store.get("a").messages) == 2


def test_one_that_is_deleted_while_it_is_looked_at(
    saver: SQLSaver, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(saver, "hello")
    resolve = store.resolve

    def slow(prefix: str) -> str:
        found = resolve(prefix)
        saver.delete_thread(found)
        return found

    monkeypatch.setattr(store, "resolve", slow)
    with pytest.raises(ThreadNotFoundError, match="any more"):
        store.get("a")
