"""Models that a process was forked with: their engine's thread is in the other one."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal
from agent import ChatVLLM
from agent.engines import RemoteEngine, ScriptedEngine
from agent.errors import EngineClosedError

models = [ChatVLLM(engine=ScriptedEngine(["one", "two"])), ChatVLLM(engine=RemoteEngine("http://localhost:1"))]
models[0].invoke("Hi")
models[1].engine.loop.run(models[1].engine.aclose())
if (child := os.fork()) == 0:
    signal.alarm(100)
    for model in models:
        try:
            model.invoke("Hi")
        except EngineClosedError as error:
            print(error, flush=True)
        model.close()
    with ChatVLLM(engine=ScriptedEngine(["three"])) as model:
        print(model.invoke("Hi").text, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], models[0].invoke("Hi").text)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system forks no processes")
def test_a_child_is_told_to_build_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=180, check=True
    )
    first, second, *rest = done.stdout.splitlines()
    assert first == second
    assert "forked" in first
    assert "build a new model here" in first
    assert rest == ["three", "0 two"]
