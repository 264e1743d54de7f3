"""kill -9 in every graph that acts: what had finished does not run again, wherever in the graph it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_crash import PATIENCE, Crashing, calls


@pytest.fixture
def crashing(tmp_path: Path) -> Crashing:
    return Crashing(tmp_path)


def delegate(task: str) -> dict[str, Any]:
    return {"tool_calls": [{"name": "doer", "arguments": {"task": task}}]}


PLAN = {"tool_calls": [{"name": "Plan", "arguments": {"steps": ["pay"]}}]}
FINISHED = {"tool_calls": [{"name": "Replan", "arguments": {"finished": True, "steps": []}}]}
PAID, DONE = {"content": "I paid."}, {"content": "All done."}


def test_killed_after_an_approval_what_was_approved_runs_once(crashing: Crashing) -> None:
    asking = ("--graph", "approval")
    waiting = crashing.finish(
        crashing.start([calls("pay", "hang")], "run", "go", "--json", *asking), PATIENCE
    )
    assert [call["name"] for call in waiting["waiting"]] == ["pay", "hang"]
    assert not crashing.runs()
    process = crashing.start([], "resume", *asking, "--approve", "all")
    crashing.kill_at(process, "← paid 5", while_running="hang")
    asked = crashing.resume([], *asking)
    assert [call["name"] for call in asked["waiting"]] == ["hang"]  # what it came to, only a person can say
    printed = crashing.resume([DONE], *asking, "--reject", "all")
    results = {m["name"]: m["content"] for m in printed["messages"] if m["role"] == "tool"}
    assert results["pay"] == "paid 5"
    assert "outcome of 'hang' is unknown" in results["hang"]
    assert printed["answer"] == "All done."
    assert crashing.runs() == {"pay": 1, "hang": 1}


@pytest.mark.parametrize(
    ("graph", "begun", "rest"),
    [
        ("supervisor", [delegate("pay"), calls("pay", "hang")], [PAID, DONE]),
        ("plan_execute", [PLAN, calls("pay", "hang")], [PAID, FINISHED, DONE]),
    ],
)
def test_killed_inside_a_worker_it_goes_on_inside(
    crashing: Crashing, graph: str, begun: list[Any], rest: list[Any]
) -> None:
    process = crashing.start(begun, "run", "go", "--graph", graph)
    crashing.kill_at(process, "← paid 5", while_running="hang")
    printed = crashing.resume(rest, "--graph", graph)
    assert printed["answer"] == "All done."
    assert crashing.runs() == {"pay": 1, "hang": 1}
