"""Long lists come back as they were stored, whichever way their elements are fetched."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.base import empty_checkpoint
from sqlalchemy import delete, update

from agent.errors import DatabaseError
from agent.persistence import SQLSaver, elements, open_checkpointer
from agent.persistence.elements import Joined, Rows
from agent.persistence.serde import StrictSerializer
from agent.persistence.tables import items

KEY = ("t", "", "messages")


def conversation(count: int) -> list[Any]:
    kinds = (
        lambda n: HumanMessage(f"ünï\0cödé {n} " + "x" * 300, id=f"h{n}"),
        lambda n: AIMessage(
            [{"type": "text", "text": "block"}, {"type": "reasoning", "reasoning": "because"}],
            id=f"a{n}",
            tool_calls=[{"name": "f", "args": {"x": n}, "id": f"c{n}"}],
            response_metadata={"at": datetime(2026, 1, 1, tzinfo=UTC), "n": 0},
            usage_metadata={"input_tokens": 1, "output_tokens": n, "total_tokens": n + 1},
        ),
        lambda n: ToolMessage("é" * 2000, tool_call_id=f"c{n - 1}", id=f"t{n}", artifact={"a": [1, None]}),
        lambda n: SystemMessage("be brief", id=f"s{n}"),
        lambda n: AIMessageChunk("part", id=f"k{n}"),
    )
    return [kinds[n % len(kinds)](n) for n in range(count)]


def put(saver: SQLSaver, value: list[Any], version: int = 1) -> None:
    checkpoint = empty_checkpoint()
    name = f"{version:010}.a"
    checkpoint["channel_values"] = {"messages": value}
    checkpoint["channel_versions"] = {"messages": name}
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    if version > 1:
        config = saver.get_tuple(config).config  # type: ignore[union-attr]
    saver.put(config, checkpoint, {"source": "loop"}, {"messages": name})


def get(saver: SQLSaver) -> Any:
    found = saver.get_tuple({"configurable": {"thread_id": "t"}})
    assert found is not None
    return found.checkpoint["channel_values"]["messages"]


def fetched(saver: SQLSaver, first: int, last: int) -> elements.Elements:
    return saver.database.read(
        lambda each: elements.fetch_elements(each, saver.serde, KEY, first=first, last=last)
    )


@pytest.mark.parametrize("count", [3, 40, 700])
def test_messages_come_back_whole_and_in_order(saver: SQLSaver, count: int) -> None:
    said = conversation(count)
    put(saver, said)
    assert isinstance(fetched(saver, 1, count), Joined if count > 32 else Rows)
    found = get(saver)
    assert found == said
    assert [type(each) for each in found] == [type(each) for each in said]
    assert [each.__dict__ for each in found] == [each.__dict__ for each in said]


def test_a_list_that_was_edited_and_pruned(saver: SQLSaver) -> None:
    said = conversation(100)
    put(saver, said)
    edited = [*said[:20], HumanMessage("edited " * 20, id="h20"), *said[21:70], *conversation(103)[100:]]
    put(saver, edited, version=2)
    assert get(saver) == edited
    saver.prune(["t"])  # the numbers of dropped elements leave gaps
    assert isinstance(fetched(saver, 1, 104), Rows)
    assert get(saver) == edited


def test_a_message_that_was_changed_in_place_is_stored_again(saver: SQLSaver) -> None:
    said = conversation(40)
    put(saver, said)
    said[3].content = "changed in place"
    said += conversation(42)[40:]
    put(saver, said, version=2)
    assert get(saver) == said
    assert len(saver.database.read(lambda each: each.once(items.select()))) == 43


def test_a_list_that_another_process_has_continued(saver: SQLSaver, where: str) -> None:
    said = conversation(44)
    with open_checkpointer(where) as other:
        put(saver, said[:40])
        put(other, said[:42], version=2)
        put(saver, said, version=3)
        put(other, said[:10], version=4)
        assert get(saver) == said[:10]
    assert len(saver.database.read(lambda each: each.once(items.select()))) == 44


def test_messages_in_one_go_are_what_they_are_one_by_one() -> None:
    serde = StrictSerializer()
    for count in (1, 15, 16, 40):
        said = conversation(count)
        assert serde.dumps_messages(said) == b"".join(serde.dumps_typed(each)[1] for each in said)
    said[1].unknown = 1
    assert serde.dumps_messages(said) is None
    assert serde.dumps_messages([{"role": "user"}]) is serde.dumps_messages([RemoveMessage("x")]) is None


def test_several_values_in_one_go_are_what_they_are_one_by_one() -> None:
    serde = StrictSerializer()
    said = conversation(9)
    values: list[Any] = [said[:3], said[3], [said[4]], said[5:]]
    stored = [serde.dumps_typed(each) for each in values]
    assert serde.loads_several(stored) == values
    assert serde.loads_several([*stored, serde.dumps_typed({"x": 1})]) == [*values, {"x": 1}]
    assert serde.loads_several([]) == []
    kind, payload = stored[0]
    for damaged in (payload[:-1], payload * 2, b"\xc0"):
        with pytest.raises(DatabaseError, match="damaged"):
            serde.loads_several([stored[1], (kind, damaged), stored[2]])
    with pytest.raises(DatabaseError, match="refused"):
        serde.loads_several([stored[0], ("pickle", b"x")])


def test_a_list_of_other_things_among_messages(saver: SQLSaver) -> None:
    mixed = [*conversation(50), {"role": "user", "content": "x" * 300}, RemoveMessage("h0"), *conversation(9)]
    put(saver, mixed)
    assert isinstance(fetched(saver, 1, len(mixed)), Rows)
    assert get(saver) == mixed


def test_loaded_messages_are_independent(saver: SQLSaver) -> None:
    said = conversation(50)
    put(saver, said)
    first: list[AnyMessage] = get(saver)
    first[0].content = "changed"
    first[0].additional_kwargs["x"] = 1
    first[5].unknown = 1  # type: ignore[union-attr]
    assert get(saver) == said
    again = copy.deepcopy(get(saver)[0])
    assert again.model_copy(update={"name": "Ada"}).model_dump()["name"] == "Ada"
    assert get(saver)[0].model_fields_set == set(HumanMessage.model_fields)


def test_an_element_that_is_several_is_damaged(saver: SQLSaver) -> None:
    put(saver, conversation(50))
    [row] = saver.database.read(lambda each: each.once(items.select().where(items.c.seq == 7)))
    doubled = update(items).where(items.c.seq == 7).values(value=bytes(row[5]) * 2)
    saver.database.write(lambda each: each.once(doubled))
    with pytest.raises(DatabaseError, match="damaged"):
        get(saver)


def test_a_missing_element_is_damage(saver: SQLSaver) -> None:
    put(saver, conversation(50))
    saver.database.write(lambda each: each.once(delete(items).where(items.c.seq == 7)))
    with pytest.raises(DatabaseError, match="damaged"):
        get(saver)
