"""A process that runs an agent on a SQLite file, to be killed inside a tool.

Arguments: DIRECTORY, then any of ``journal``, ``harmless``, ``resume``, ``ask``.

Every run of a tool leaves a line in ``runs.txt``. ``kill_me`` kills the process the first time it runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from graph_doubles import ScriptedModel, calls
from langgraph.checkpoint.sqlite import SqliteSaver

from agent.persistence import open_checkpointer
from graphs import build_react_graph
from tools import ToolPolicy, tool

HERE = Path(sys.argv[1])
SETTINGS: Any = {"configurable": {"thread_id": "t"}}


def open_saver() -> Any:
    """The product's saver, which has a journal, or LangGraph's, which has none."""
    if "journal" in sys.argv:
        return open_checkpointer(f"sqlite:///{HERE / 'threads.db'}")
    return SqliteSaver.from_conn_string(str(HERE / "threads.db"))


def note(name: str) -> int:
    with (HERE / "runs.txt").open("a") as lines:
        lines.write(f"{name}\n")
    return (HERE / "runs.txt").read_text().split().count(name)


@tool
def pay(amount: int) -> str:
    """Pay, once."""
    return f"paid {amount}, receipt {note('pay')}"


def _die_the_first_time(name: str) -> str:
    if note(name) == 1:
        while "pay" not in (HERE / "runs.txt").read_text():
            time.sleep(0.01)
        time.sleep(0.5)  # so that the result of pay is stored
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name} ran again"


@tool
def kill_me() -> str:
    """Kill the process that runs this, the first time."""
    return _die_the_first_time("kill_me")


@tool(policy=ToolPolicy(idempotent=True))
def kill_me_harmlessly() -> str:
    """The same, but harmless to repeat."""
    return _die_the_first_time("kill_me_harmlessly")


def main() -> None:
    deadly = "kill_me_harmlessly" if "harmless" in sys.argv else "kill_me"
    answer = calls(("pay", {"amount": 5}), (deadly, {}))
    model = ScriptedModel(script=["all done"] if "resume" in sys.argv else [answer, "all done"])
    question = "go" if "resume" not in sys.argv else "what happened?" if "ask" in sys.argv else None
    with open_saver() as saver:
        graph = build_react_graph(model=model, tools=[pay, kill_me, kill_me_harmlessly], checkpointer=saver)
        state = graph.invoke({"messages": question} if question else None, SETTINGS)
    print(json.dumps([[m.type, m.text] for m in state["messages"]]))


if __name__ == "__main__":
    main()
