"""The planner beside vLLM itself, in a short form; `python -m benchmarks.fit_engine` starts all
configurations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.engine
def test_weights_and_blocks_are_those_of_the_engine() -> None:
    command = [sys.executable, "-m", "benchmarks.fit_engine", "sliding-hybrid", "mamba-hybrid"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [outcome["name"] for outcome in outcomes] == ["sliding-hybrid", "mamba-hybrid"]
    for outcome in outcomes:
        engine, planner = outcome["vllm"], outcome["planner"]
        assert planner["weights"] == planner["weights_stored"] == engine["weights"], outcome["name"]
        assert {**planner, **engine} == {**engine, **planner}, outcome["name"]
