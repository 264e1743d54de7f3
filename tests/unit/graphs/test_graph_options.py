"""Options of the graphs that are misspelt or out of range."""

from __future__ import annotations

from typing import Any

import pytest
from graph_doubles import ScriptedModel

from graphs import (
    build_approval_graph,
    build_plan_execute_graph,
    build_react_graph,
    build_retrieval_graph,
    build_supervisor_graph,
)

CONVERSING = [build_react_graph, build_approval_graph, build_retrieval_graph, build_supervisor_graph]


@pytest.mark.parametrize("build", CONVERSING)
def test_a_word_for_summaries_that_is_none_does_not_mean_trimming(build: Any) -> None:
    with pytest.raises(ValueError, match="give 'trim' or 'summarise'"):
        build(model=ScriptedModel(script=["x"]), overflow="summarize")


@pytest.mark.parametrize("build", [*CONVERSING, build_plan_execute_graph])
@pytest.mark.parametrize("tokens", [0, -1, float("nan")])
def test_a_context_without_room_is_refused(build: Any, tokens: Any) -> None:
    with pytest.raises(ValueError, match="max_context_tokens"):
        build(model=ScriptedModel(script=["x"]), max_context_tokens=tokens)


def test_a_first_choice_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'any' or 'auto'"):
        build_supervisor_graph(model=ScriptedModel(script=["x"]), first="required")
