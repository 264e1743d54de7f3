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
    command += ["--categories", "simple_python,irrelevance"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    required = [score for score in scores if score["mode"] == "required"]
    assert [score["called"] for score in required] == [1.0]
    assert {score["category"] for score in scores} == {"simple_python", "irrelevance"}


@pytest.mark.engine
def test_bfcl_scores_the_peer() -> None:
    command = [sys.executable, str(BENCHMARKS / "bfcl.py"), "--who", "peer", "--limit", "2", "--json"]
    command += ["--categories", "parallel,irrelevance", "--max-tokens", "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [(score["mode"], score["category"]) for score in figures["scores"]] == [
        ("required", "parallel"),
        ("auto", "parallel"),
        ("auto", "irrelevance"),
    ]
    # The server does show the tools to its model, and reads the calls: with `required` one is begun.
    forced = [outcome for outcome in figures["outcomes"] if outcome["mode"] == "required"]
    assert all(outcome["calls"] or "<tool_call>" in outcome["text"] for outcome in forced), forced


@pytest.mark.engine
def test_text_measures_our_calls() -> None:
    command = [sys.executable, str(BENCHMARKS / "text.py"), "--role", "ours", "--way", "tasks"]
    command += ["--model", str(embedded_model()), "--calls", "3", "--tokens", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["well"], figures["same"], figures["errors"]) == (1.0, 1.0, {})
    assert figures["tokens_per_s"] > 0
