"""``vllm-agent`` on a scripted model that calls ``step`` three times per question; made to be killed.

Arguments: a directory, in which every run of the tool is noted, the seconds that one takes, then the command
line. Once so many runs are noted as ``BATCH_HOLD`` says, a tool comes to no end any more.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import agent.app
from agent import ChatVLLM
from agent.cli.main import main
from agent.engines import Reply, ScriptedEngine
from tools import ToolRegistry, tool

HERE = Path(sys.argv.pop(1))
SECONDS = float(sys.argv.pop(1))
STEPS = 3
HOLD = int(os.environ.get("BATCH_HOLD", "1000000"))
RUNS = HERE / "runs.txt"


@tool
def step(question: str, number: int) -> str:
    """Do one step, once."""
    time.sleep(SECONDS)
    while RUNS.exists() and len(RUNS.read_text().split()) >= HOLD:
        time.sleep(0.05)
    file = os.open(RUNS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{question.replace(' ', '-')}-{number}\n".encode())
    os.close(file)
    return f"did {number}"


def next_step(request: Any) -> Reply:
    done = sum(message["role"] == "tool" for message in request["messages"])
    if done == STEPS:
        return Reply("Done.")
    question = next(each["content"] for each in request["messages"] if each["role"] == "user")
    arguments = {"question": question, "number": done + 1}
    return Reply(tool_calls=[{"name": "step", "arguments": arguments, "id": uuid.uuid4().hex}])


engine = ScriptedEngine([next_step], repeat=True)
agent.app.build_model = lambda settings, **_: ChatVLLM(engine=engine)
agent.app.build_registry = lambda settings: ToolRegistry([step])
main()
