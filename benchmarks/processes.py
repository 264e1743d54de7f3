"""Several processes on one file, beside LangGraph's ``SqliteSaver``: 4 processes with 8 conversations each.

    python -m benchmarks.processes                 # 60 seconds for each of the two savers
    python -m benchmarks.processes --seconds 4 --json

Every process stores steps as fast as it can, and says which have been acknowledged. Afterwards every one of
them has to be there, in order, and the file has to be sound.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from agent.persistence import open_checkpointer

PROCESSES, CONVERSATIONS = 4, 8


def opener(name: str, path: str) -> AbstractContextManager[Any]:
    return open_checkpointer(path) if name == "ours" else SqliteSaver.from_conn_string(path)


def write(name: str, path: str, threads: list[str], seconds: float) -> None:
    """What one process does; prints each step that was acknowledged, and the first error of each kind."""
    until = time.monotonic() + seconds
    with opener(name, path) as saver:
        heads: dict[str, Any] = {}
        said: dict[str, list[HumanMessage]] = {thread: [] for thread in threads}
        step = 0
        while time.monotonic() < until:
            thread = threads[step % len(threads)]
            step += 1
            message = HumanMessage(f"{len(said[thread])} " + "x" * 200)
            checkpoint = empty_checkpoint()
            version = saver.get_next_version(f"{len(said[thread])}.0", None)
            checkpoint["channel_values"] = {"messages": [*said[thread], message]}
            checkpoint["channel_versions"] = {"messages": version}
            config = heads.get(thread, {"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
            try:
                heads[thread] = saver.put(
                    config, checkpoint, {"source": "loop", "step": step}, {"messages": version}
                )
            except Exception as error:
                print(f"error {type(error).__name__}: {error}", flush=True)
                continue
            said[thread].append(message)
            print(f"done {thread}", flush=True)


def found(name: str, path: str, thread: str) -> list[str]:
    """The first words of the messages that a conversation has."""
    with opener(name, path) as saver:
        newest = saver.get_tuple({"configurable": {"thread_id": thread}})
        messages = newest.checkpoint["channel_values"]["messages"] if newest else []
        return [message.text.split()[0] for message in messages]


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Let the processes write, and look at what is there."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "shared.sqlite")
        writers = []
        for number in range(PROCESSES):
            threads = ",".join(f"p{number}-{each}" for each in range(CONVERSATIONS))
            command = [
                sys.executable,
                "-m",
                "benchmarks.processes",
                "--write",
                name,
                path,
                threads,
                str(seconds),
            ]
            writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        lines = [line for writer in writers for line in writer.communicate()[0].splitlines()]
        errors = Counter(line.removeprefix("error ")[:80] for line in lines if line.startswith("error"))
        acknowledged = Counter(line.removeprefix("done ") for line in lines if line.startswith("done"))
        lost = 0
        for thread, count in acknowledged.items():
            there = found(name, path, thread)
            lost += there[:count] != [str(position) for position in range(count)]
        with closing(sqlite3.connect(path)) as connection:
            sound = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return {
        "failed_processes": sum(writer.returncode != 0 for writer in writers),
        "conversations": len(acknowledged),
        "steps_per_s": sum(acknowledged.values()) / seconds,
        "errors": sum(errors.values()),
        "kinds_of_errors": dict(errors.most_common(3)),
        "conversations_that_lost_a_step": lost,
        "file_is_sound": sound,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each of the two writes (60)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        name, path, threads, seconds = options.write
        write(name, path, threads.split(","), float(seconds))
        return
    figures = {name: measure(name, options.seconds) for name in ("ours", "official")}
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for figure in figures["ours"]:
        print(f"{figure:32}" + "".join(f"{figures[name][figure]!s:>16}" for name in figures))


if __name__ == "__main__":
    main()
