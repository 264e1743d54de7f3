"""The command line on real vLLM and the embedded model, each command a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 600.0

pytestmark = pytest.mark.engine


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_AGENT_")}
    cache = {name: value for name, value in os.environ.items() if name == "VLLM_AGENT_CACHE"}
    return {
        **known,
        **cache,
        "VLLM_AGENT_HOME": str(tmp_path / "home"),
        "VLLM_AGENT_WARM_MINUTES": "0",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run(environment: dict[str, str], *arguments: str) -> tuple[str, str]:
    process = start(environment, *arguments)
    printed, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return printed, said


def tool_results(messages: Sequence[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "tool"]


def test_the_demo_calls_tools_and_resumes_in_a_new_process(environment: dict[str, str]) -> None:
    printed, said = run(environment, "demo")
    assert "SmolLM2-135M-Instruct (embedded) · vLLM" in said
    [thread] = json.loads(run(environment, "threads", "list", "--json")[0])
    messages = json.loads(run(environment, "threads", "show", thread["id"], "--json")[0])["messages"]
    assert sum(message["role"] == "user" for message in messages) == 3
    assert len(tool_results(messages)) >= 2
    assert "15 * 23 = 345" in tool_results(messages)
    assert f"vllm-agent chat --thread {thread['id'][:8]}" in printed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_real_engine_and_leaves_no_process(
    environment: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = start(environment, "run", "Tell me a long story.", "--no-tools")
    assert process.stderr is not None
    for line in process.stderr:
        if "ready in" in line:
            break
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(number)
    assert process.wait(PATIENCE) == code
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def test_a_model_that_is_not_there_is_one_line(environment: dict[str, str]) -> None:
    process = start(environment, "run", "Hi", "--model", "/nowhere/at/all")
    printed, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert printed == ""
    assert "error: no model directory at '/nowhere/at/all'" in said
    assert "Traceback" not in said
