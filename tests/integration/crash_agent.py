"""``vllm-agent`` on a scripted model, with tools that note every run of theirs; made to be killed.

Arguments: a directory, a script, then the command line. A script is a JSON list of replies, or a number N for
a model that calls ``step`` N times in a row and then says how often it did. A process does as many steps as
``CRASH_HOLD`` says, and waits in the next one to be killed.
"""

from __future__ import annotations

import json
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
from tools import ToolPolicy, ToolRegistry, tool

HERE = Path(sys.argv.pop(1))
SCRIPT = json.loads(sys.argv.pop(1))
HOLD = int(os.environ.get("CRASH_HOLD", "1000"))
done_here: list[int] = []


def note(what: str) -> None:
    """Leave a trace that no crash takes back."""
    file = os.open(HERE / "runs.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{what}\n".encode())
    os.close(file)


@tool
def pay(amount: int) -> str:
    """Pay, once."""
    note("pay")
    return f"paid {amount}"


@tool
def hang() -> str:
    """Take longer than anyone waits."""
    note("hang")
    time.sleep(300)
    return "never"


@tool(policy=ToolPolicy(idempotent=True))
def look() -> str:
    """Take long the first time; harmless to repeat."""
    first = "look" not in (HERE / "runs.txt").read_text().split() if (HERE / "runs.txt").exists() else True
    note("look")
    if first:
        time.sleep(300)
    return "seen"


@tool
def step(number: int) -> str:
    """Do one step of a long job, once."""
    if len(done_here) == HOLD:
        time.sleep(300)
    done_here.append(number)
    note(f"step-{number}")
    time.sleep(0.05)
    return f"did {number}"


def next_step(request: Any) -> Reply:
    """Call ``step`` for as long as the conversation has fewer results than steps."""
    done = sum(message["role"] == "tool" for message in request["messages"])
    if done == SCRIPT:
        return Reply(f"All {done} steps are done.")
    return Reply(tool_calls=[{"name": "step", "arguments": {"number": done + 1}, "id": uuid.uuid4().hex}])


def build_model(settings: Any, **_: Any) -> ChatVLLM:
    replies = [next_step] if isinstance(SCRIPT, int) else [Reply(**reply) for reply in SCRIPT]
    engine = ScriptedEngine(replies, repeat=isinstance(SCRIPT, int))
    return ChatVLLM(engine=engine)


agent.app.build_model = build_model
agent.app.build_registry = lambda settings: ToolRegistry([pay, hang, look, step])
main()
