"""Batches: how many calls of one run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate

from agent import ChatVLLM
from agent.engines import Reply, ScriptedEngine

MANY = 40  # more than LangChain's own batches run at once on any machine of fewer than 36 cores
QUESTIONS = [f"Question {number}" for number in range(MANY)]


class Gathering(ScriptedEngine):
    """Answers nobody before as many as ``wanted`` are waiting."""

    wanted = MANY

    async def chat(self, request: Any) -> Any:
        self.waiting = getattr(self, "waiting", 0) + 1
        self.most = max(getattr(self, "most", 0), self.waiting)
        deadline = asyncio.get_running_loop().time() + 60
        while self.most < self.wanted:
            assert asyncio.get_running_loop().time() < deadline, f"only {self.most} ran at once"
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        self.waiting -= 1
        return await super().chat(request)


def built() -> tuple[ChatVLLM, Gathering]:
    engine = Gathering([Reply("Yes.")], repeat=True)
    return ChatVLLM(engine=engine), engine


def as_completed(model: Any) -> list[Any]:
    return [answer for _, answer in sorted(model.batch_as_completed(QUESTIONS), key=lambda pair: pair[0])]


@pytest.mark.parametrize(
    "run",
    [
        lambda model: model.batch(QUESTIONS),
        lambda model: model.batch(QUESTIONS, [{"tags": [question]} for question in QUESTIONS]),
        lambda model: model.bind(temperature=0.0).batch(QUESTIONS),
        lambda model: (ChatPromptTemplate.from_template("{input}") | model).batch(QUESTIONS),
        as_completed,
    ],
    ids=["plain", "configs", "bound", "chain", "as completed"],
)
def test_all_calls_of_a_batch_run_at_once(run: Callable[[Any], list[Any]]) -> None:
    model, engine = built()
    assert [answer.text for answer in run(model)] == ["Yes."] * MANY
    assert engine.most == MANY
    model.close()


def test_a_caller_who_wants_fewer_gets_fewer() -> None:
    model, engine = built()
    engine.wanted = 3
    assert len(model.batch(QUESTIONS, {"max_concurrency": 3})) == MANY
    assert engine.most == 3
    model.close()


def test_errors_of_single_calls_are_returned_where_that_is_asked_for() -> None:
    engine = ScriptedEngine([Reply("Yes."), RuntimeError("no")], repeat=True)
    model = ChatVLLM(engine=engine)
    answers = model.batch(["a", "b"], return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["AIMessage", "RuntimeError"]
    model.close()
