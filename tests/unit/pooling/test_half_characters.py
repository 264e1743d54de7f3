"""Texts with half of a character in them, which no tokenizer takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent import VLLMEmbeddings, VLLMReranker, VLLMRewardModel
from agent.engines import ScriptedEngine

HALF = "a cat \ud83d"
WHOLE = "a cat \ufffd"


def test_a_text_is_embedded_and_compared_as_it_is_answered() -> None:
    engine = ScriptedEngine([])
    embeddings = VLLMEmbeddings(engine=engine)
    assert embeddings.embed_query(HALF) == embeddings.embed_query(WHOLE)
    assert embeddings.embed_documents([HALF]) == embeddings.embed_documents([WHOLE])
    assert VLLMReranker(engine=engine).score(HALF, [HALF, "b"])[0] > 0.9


def test_a_text_is_judged_alone_and_beside_a_conversation() -> None:
    asked: list[Any] = []

    def answer(route: str, request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request.get("input") or request["messages"][0]["content"])
        return {"data": [{"index": 0, "probs": [0.5]}]}

    model = VLLMRewardModel(engine=ScriptedEngine([], pooled=answer))
    model.invoke(HALF)
    model.batch([HALF, [("user", HALF)]])
    assert asked == [[WHOLE], [WHOLE], WHOLE]
