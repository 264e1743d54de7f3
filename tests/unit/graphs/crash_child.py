"""A process that runs an agent on a SQLite file, to be killed inside a tool.

Arguments: DIRECTORY, then any of ``journal``, ``harmless``, ``resume``, ``ask``, ``twice``, ``person`` (the
approval graph, which asks only about what its policy says), and decisions as JSON.

Every run of a tool leaves a line in ``runs.txt``. ``kill_me`` kills the process the first time it runs, and
with ``twice`` the second time too.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from graph_doubles import ScriptedModel, calls
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from agent.persistence import open_checkpointer
from graphs import build_approval_graph, build_react_graph, waiting_calls
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


def _pay_is_stored() -> bool:
    """Whether what ``pay`` gave outlives this process: in the journal, or without one in the saver."""
    with open_saver() as saver:
        if "journal" in sys.argv:
            entries = asyncio.run(saver.journal.aentries(thread_id="t"))
            return any((each.tool, each.status) == ("pay", "finished") for each in entries.values())
        found = saver.get_tuple(SETTINGS)
        written = (
            [value for _, channel, value in found.pending_writes if channel == "messages"] if found else []
        )
        return any(isinstance(message, ToolMessage) for messages in written for message in messages)


def _die_the_first_time(name: str) -> str:
    if note(name) <= (2 if "twice" in sys.argv else 1):
        while not _pay_is_stored():
            time.sleep(0.01)
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
    tools = [pay, kill_me, kill_me_harmlessly]
    decisions = [json.loads(each) for each in sys.argv if each.startswith("{")]
    given: Any = {"messages": question} if question else Command(resume=decisions[0]) if decisions else None
    with open_saver() as saver:
        if "person" not in sys.argv:
            graph = build_react_graph(model=model, tools=tools, checkpointer=saver)
            state = graph.invoke(given, SETTINGS)
            print(json.dumps([[m.type, m.text] for m in state["messages"]]))
            return
        graph = build_approval_graph(model=model, tools=tools, checkpointer=saver, asks="policy")
        state = graph.invoke(given, SETTINGS)
        waiting = [[call["id"], call.get("warning")] for call in waiting_calls(state)]
        print(json.dumps({"waiting": waiting, "messages": [[m.type, m.text] for m in state["messages"]]}))


if __name__ == "__main__":
    main()
