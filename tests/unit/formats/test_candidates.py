"""The likeliest of several answers, whole and streamed, on an engine whose answers are written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines import ScriptedEngine
from agent.errors import EngineError
from agent.formats.text.candidates import comparable, likeliest, stream_likeliest

Answer = Sequence[tuple[str, float]]
"""Tokens with their log-probabilities."""


class Written(ScriptedEngine):
    """Gives the answer that the request names; ``order`` says in which order their tokens come."""

    def __init__(self, answers: Mapping[str, Answer], order: str = "") -> None:
        super().__init__([])
        self.answers = answers
        self.order = order
        self.open = 0

    def _choice(self, name: str) -> dict[str, Any]:
        tokens = [{"token": token, "logprob": logprob} for token, logprob in self.answers[name]]
        return {"index": 0, "finish_reason": "stop", "logprobs": {"content": tokens}}

    async def chat(self, request: Mapping[str, Any]) -> dict[str, Any]:
        text = "".join(token for token, _ in self.answers[request["name"]])
        return {
            "id": request["name"],
            "choices": [{**self._choice(request["name"]), "message": {"content": text}}],
        }

    async def stream_chat(self, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        assert request["logprobs"] is True
        name = request["name"]
        self.open += 1
        try:
            for position, (token, logprob) in enumerate(self.answers[name]):
                while self.order and not self.order.startswith(name):  # noqa: ASYNC110  (whose turn it is)
                    await asyncio.sleep(0)
                self.order = self.order[1:]
                if token == "fail":
                    raise EngineError("it failed")
                delta = {"content": token} if position else {"role": "assistant", "content": token}
                choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
                choice["logprobs"] = {"content": [{"token": token, "logprob": logprob}]}
                if position == len(self.answers[name]) - 1:
                    choice["finish_reason"] = "stop"
                yield {"id": name, "choices": [choice]}
            yield {"id": name, "choices": [], "usage": {"completion_tokens": len(self.answers[name])}}
        finally:
            self.open -= 1


REQUESTS = [{"name": "a"}, {"name": "b"}]
UNLIKELY: Answer = [("The", -0.1), (" city", -0.1), (" of", -0.1), (" Las", -0.2), (" Vegas", -5.0)]
LIKELY: Answer = [("The", -0.1), (" city", -0.1), (" of Los", -0.9), (" Angeles", -0.1)]


async def collected(engine: Written) -> list[dict[str, Any]]:
    return [chunk async for chunk in stream_likeliest(engine, REQUESTS)]


def text_of(chunks: Sequence[Mapping[str, Any]]) -> str:
    return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ({"a": UNLIKELY, "b": LIKELY}, "The city of Los Angeles"),
        ({"a": LIKELY, "b": UNLIKELY}, "The city of Los Angeles"),
        ({"a": [("one", -1.0)], "b": [("two", -1.0)]}, "one"),
    ],
)
async def test_the_likeliest_as_a_whole_is_taken(answers: Mapping[str, Answer], text: str) -> None:
    response = await likeliest(Written(answers), REQUESTS)
    assert response["choices"][0]["message"]["content"] == text
    assert "logprobs" not in response["choices"][0]
    chunks = await collected(Written(answers))
    assert text_of(chunks) == text
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == [
        "stop"
    ]
    assert not any("logprobs" in c for chunk in chunks for c in chunk["choices"])
    assert sum("usage" in chunk for chunk in chunks) == 1
    assert ["role" in c["delta"] for chunk in chunks for c in chunk["choices"]].index(True) == 0
    assert sum("role" in c["delta"] for chunk in chunks for c in chunk["choices"]) == 1
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_what_is_common_is_passed_on_while_they_are_written() -> None:
    engine = Written({"a": UNLIKELY, "b": LIKELY}, order="ababababa")
    chunks = stream_likeliest(engine, REQUESTS)
    first = [await anext(chunks) for _ in range(3)]
    assert [text_of([chunk]) for chunk in first] == ["The", " city", " of"]
    assert len(engine.order) > 2  # both have more to say
    assert text_of([chunk async for chunk in chunks]) == " Los Angeles"


async def test_a_stream_that_is_left_frees_both_slots() -> None:
    engine = Written({"a": UNLIKELY, "b": LIKELY}, order="ab!")  # and then neither
    chunks = stream_likeliest(engine, REQUESTS)
    await anext(chunks)
    assert engine.open == 2
    await chunks.aclose()  # type: ignore[attr-defined]
    assert engine.open == 0


async def test_an_error_of_one_is_the_error_of_the_answer() -> None:
    with pytest.raises(EngineError, match="it failed"):
        await collected(Written({"a": [("x", -1.0), ("fail", 0.0)], "b": LIKELY}))


TEXTS = st.lists(st.tuples(st.sampled_from("xyz"), st.floats(-3, 0)), min_size=1, max_size=6)


@given(a=TEXTS, b=TEXTS, data=st.data())
def test_streamed_equals_whole(a: Answer, b: Answer, data: st.DataObject) -> None:
    order = data.draw(st.permutations("a" * len(a) + "b" * len(b)))

    async def both() -> tuple[Any, str]:
        answers = {"a": a, "b": b}
        whole = await likeliest(Written(answers), REQUESTS)
        return whole["choices"][0]["message"]["content"], text_of(
            await collected(Written(answers, "".join(order)))
        )

    whole, streamed = asyncio.run(both())
    assert streamed == whole


@pytest.mark.parametrize(
    ("request_", "whether"), [({}, True), ({"n": 1}, True), ({"n": 2}, False), ({"logprobs": True}, False)]
)
def test_what_can_be_compared(request_: dict[str, Any], whether: bool) -> None:
    assert comparable(request_) is whether


class Unequal(ScriptedEngine):
    """Refuses one request and works on the other for ever."""

    def __init__(self) -> None:
        super().__init__([])
        self.ended = 0

    async def chat(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return [chunk async for chunk in self.stream_chat(request)][-1]

    async def stream_chat(self, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        if request["name"] == "bad":
            raise EngineError("it failed")
        try:
            yield {"id": "x", "choices": []}
            await asyncio.sleep(600)
        finally:
            self.ended += 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failure_ends_the_other_at_once(streamed: bool) -> None:
    engine, requests = Unequal(), [{"name": "long"}, {"name": "bad"}]

    async def ask() -> None:
        if streamed:
            _ = [chunk async for chunk in stream_likeliest(engine, requests)]
        else:
            await likeliest(engine, requests)

    async with asyncio.timeout(60):
        with pytest.raises(EngineError, match="it failed"):
            await ask()
        await asyncio.sleep(0.01)
    assert engine.ended == 1
