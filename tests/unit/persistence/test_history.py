"""The chain of a checkpoint's ancestors is found whatever lies between them, and each once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from agent.persistence import SQLSaver
from agent.persistence import statements as sql
from agent.persistence.history import ancestors
from agent.persistence.records import Address


def put(saver: SQLSaver, checkpoint_id: str, parent_id: str | None) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": parent_id}}
    checkpoint = {**empty_checkpoint(), "id": checkpoint_id}
    saver.put(config, checkpoint, {"source": "fork"}, {})  # type: ignore[arg-type]


def chain(saver: SQLSaver, checkpoint_id: str) -> Sequence[str]:
    here = Address("t", "", checkpoint_id)
    return saver.database.read(lambda transaction: [found for found, _ in ancestors(transaction, here)])


@pytest.mark.parametrize("branches", [0, 1, 40])
def test_other_branches_are_passed_over(saver: SQLSaver, branches: int) -> None:
    length = 100 if branches < 2 else 12
    ids = [f"{n * 100:08}" for n in range(length)]
    for n, checkpoint_id in enumerate(ids):
        put(saver, checkpoint_id, ids[n - 1] if n else None)
        for branch in range(1, branches + 1):
            put(saver, f"{n * 100 + branch:08}", checkpoint_id)
    assert chain(saver, ids[-1]) == ids[-2::-1]
    if branches:
        assert chain(saver, f"{500 + branches:08}") == ids[5::-1]


def test_ids_that_do_not_sort_by_time(saver: SQLSaver) -> None:
    ids = [f"{n:04}" for n in range(60)]
    random.Random(7).shuffle(ids)
    for n, checkpoint_id in enumerate(ids):
        put(saver, checkpoint_id, ids[n - 1] if n else None)
    assert chain(saver, ids[-1]) == ids[-2::-1]


def test_a_loop_and_a_missing_parent_end_the_chain(saver: SQLSaver) -> None:
    put(saver, "3", "2")
    put(saver, "2", "1")
    assert chain(saver, "3") == ["2"]
    put(saver, "1", "3")
    assert chain(saver, "3") == ["2", "1"]
    assert chain(saver, "none") == []


def test_a_conversation_without_branches_takes_few_queries(saver: SQLSaver) -> None:
    ids = [f"{n:04}" for n in range(200)]
    for n, checkpoint_id in enumerate(ids):
        put(saver, checkpoint_id, ids[n - 1] if n else None)

    def asked(transaction: Any) -> Sequence[Any]:
        ask, statements = transaction.all, []
        transaction.all = lambda statement, parameters: (
            statements.append(statement) or ask(statement, parameters)
        )
        assert len([*ancestors(transaction, Address("t", "", ids[-1]))]) == 199
        return statements

    queries = 3 if saver.database.dialect == "sqlite" else 2  # 32, 64 and 128 of them; 128 and 256
    assert saver.database.read(asked) == [sql.PRECEDING] * queries
