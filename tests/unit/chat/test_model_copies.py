"""Models of every kind that share an engine: copies, and those that were given it."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest

from agent import VLLM, ChatVLLM, VLLMClassifier, VLLMEmbeddings, VLLMReranker
from agent.engines import ScriptedEngine


@pytest.mark.parametrize("kind", [ChatVLLM, VLLM, VLLMEmbeddings, VLLMReranker, VLLMClassifier])
def test_every_copy_shares_the_engine(kind: Any) -> None:
    model = kind(engine=ScriptedEngine([]), timeout=5)
    for made in (copy.copy(model), copy.deepcopy(model), model.model_copy(deep=True)):
        assert made is not model
        assert made._session is model._session
        assert made.timeout == 5
    assert copy.deepcopy({"model": model})["model"]._session is model._session
    model.close()


@pytest.mark.parametrize("kind", [ChatVLLM, VLLM])
def test_a_given_engine_outlives_a_model_that_nobody_holds(kind: Any) -> None:
    engine = ScriptedEngine(["one", "two"])
    kind(engine=engine).invoke("Hi")
    gc.collect()
    assert not engine.closed
    with kind(engine=engine) as model:
        model.invoke("Hi")
    assert engine.closed
