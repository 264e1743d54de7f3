"""The benchmarks run: a short form of each, without looking at the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.catalogue.embedded import embedded_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.engine
def test_bfcl_scores_a_few_items() -> None:
    command = [sys.executable, str(BENCHMARKS / "bfcl.py"), "--limit", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    required = [score for score in scores if score["mode"] == "required"]
    assert [score["called"] for score in required] == [1.0]
    assert {score["category"] for score in scores} == {"simple_python", "irrelevance"}


@pytest.mark.engine
def test_text_measures_our_calls() -> None:
    command = [sys.executable, str(BENCHMARKS / "text.py"), "--role", "ours", "--way", "tasks"]
    command += ["--model", str(embedded_model()), "--calls", "3", "--tokens", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["well"], figures["same"], figures["errors"]) == (1.0, 1.0, {})
    assert figures["tokens_per_s"] > 0


@pytest.mark.engine
def test_engine_measures_our_calls() -> None:
    command = [sys.executable, str(BENCHMARKS / "engine.py"), "--roles", "ours", "--rounds", "1"]
    command += ["--calls", "3", "--tokens", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    round_ = json.loads(done.stderr.strip().splitlines()[-1].removeprefix("round 1: "))["ours"]
    assert round_["first_token_s"] > 0
    assert round_["tokens_per_s"]["3"] > 0
    rows = json.loads(done.stdout)
    assert [row["figure"].split()[0] for row in rows] == ["processor", "processor", "MB"]
