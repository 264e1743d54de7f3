"""The planner is as exact as is promised, on published logs (`benchmarks/fit.py` has the figures)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.fit import figures, rows


@pytest.fixture(scope="module", params=["test", "all"])
def measured(request: pytest.FixtureRequest) -> dict[str, Any]:
    return figures(rows(), request.param)


def test_weights_are_exact(measured: dict[str, Any]) -> None:
    assert measured["weights_text"]["rows"] >= 15
    assert measured["weights_text"]["worst"] <= 0.003
    assert measured["weights_rest"]["rows"] >= 10
    assert measured["weights_rest"]["worst"] <= 0.02


def test_tokens_follow_from_the_cache(measured: dict[str, Any]) -> None:
    assert measured["tokens_from_gib"]["rows"] >= 20
    assert measured["tokens_from_gib"]["worst"] <= 0.003
    assert measured["tokens_from_gib_tp"]["worst"] <= 0.012


def test_the_whole_prediction_holds(measured: dict[str, Any]) -> None:
    end = measured["end_to_end"]
    assert end["rows"] >= 18
    assert end["inside"] >= 0.85
    assert end["median_off"] <= 0.12
    assert measured["starts"]["rows"] >= 30
    assert measured["starts"]["right"] >= 0.95
