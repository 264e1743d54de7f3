"""The benchmarks run: a short form of each, without looking at the figures."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def short_form(module: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark of conversations as its document says, and return what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=BENCHMARKS.parent, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killed_at_random_moments_nothing_is_lost_or_done_twice(
    database: str, request: pytest.FixtureRequest
) -> None:
    """The short form of the crash matrix; the long one kills 200 processes."""
    if database == "postgresql":
        request.getfixturevalue("postgres")  # which fails, or skips, where there is none
    figures = short_form("crash", "--kills", "8", *(["--postgres"] if database == "postgresql" else []))
    assert figures["kills"] == 8
    assert figures["conversations"] >= 1
    assert (figures["ran_twice"], figures["different"]) == ([], [])


def test_processes_share_a_file() -> None:
    figures = short_form("processes", "--seconds", "1")["ours"]
    assert (figures["errors"], figures["failed_processes"]) == (0, 0)
    assert (figures["conversations_that_lost_a_step"], figures["file_is_sound"]) == (0, True)


@pytest.mark.parametrize("name", ["ours", "official"])
def test_persistence_measures_both_savers(name: str) -> None:
    from benchmarks import persistence

    opener = persistence.SAVERS[name]
    assert asyncio.run(persistence.conversation(opener, persistence.Delta, 34))["megabytes"] > 0
    assert asyncio.run(persistence.concurrent(opener, 1))["steps_per_s"] > 0
    assert asyncio.run(persistence.loading(opener, 40, 3))["load_ms"] > 0
    assert asyncio.run(persistence.growth([1, 2, 4]))["exponent"] > 0


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
    assert [row["figure"].split()[0] for row in rows] == ["processor", "processor", "MB", "MB"]
