"""A batch that goes on with conversations which another graph has left unfinished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli_doubles import CALL, Terminal


def batch(terminal: Terminal, directory: Path, *flags: str) -> Any:
    tasks, out = directory / "tasks.jsonl", directory / "out.jsonl"
    tasks.write_text(json.dumps({"question": "And now?", "thread": "talk"}))
    terminal.run("batch", str(tasks), str(out), "--model", "scripted", *flags)
    return json.loads(out.read_text())


def test_what_waits_for_a_person_is_left_to_its_graph(terminal: Terminal, tmp_path: Path) -> None:
    terminal.script(CALL)
    approval = ("--graph", "approval", "--model", "scripted")
    terminal.run("run", "What is 15 * 23?", "--thread", "talk", *approval)
    terminal.script("I go on as I like.", "So.")
    record = batch(terminal, tmp_path)
    assert "--graph approval" in record["error"]["message"]
    assert [each["id"] for each in terminal.json("threads", "list") if each["status"] == "interrupted"] == [
        "talk"
    ]
