"""Several processes on one file, and processes that are killed: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.persistence import open_checkpointer

ROOT = Path(__file__).parents[2]

WRITER = """
import sys
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from agent.persistence import open_checkpointer

path, threads, seconds = sys.argv[1], sys.argv[2].split(","), float(sys.argv[3])
import time
until = time.monotonic() + seconds
with open_checkpointer(path) as saver:
    heads = {}
    said = {thread: [] for thread in threads}
    step = 0
    while time.monotonic() < until or step < len(threads):  # each at least once, however slow it is
        thread = threads[step % len(threads)]
        step += 1
        said[thread].append(HumanMessage(f"{thread} {len(said[thread])} " + "x" * 200))
        checkpoint = empty_checkpoint()
        version = saver.get_next_version(len(said[thread]), None)
        checkpoint["channel_values"] = {"messages": list(said[thread])}
        checkpoint["channel_versions"] = {"messages": version}
        config = heads.get(thread, {"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
        heads[thread] = saver.put(config, checkpoint, {"source": "loop", "step": step}, {"messages": version})
        saver.put_writes(heads[thread], [("messages", [said[thread][-1]])], f"task-{step}")
        print(thread, len(said[thread]), flush=True)
"""


def start(path: Path, threads: list[str], seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), ",".join(threads), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def acknowledged(output: str) -> dict[str, int]:
    whole = output.rpartition("\n")[0]  # a process may be killed in the middle of a line
    lines = [line.split() for line in whole.splitlines() if line.count(" ") == 1]
    return {thread: int(count) for thread, count in lines}


def assert_sound(path: Path, counts: dict[str, int]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with open_checkpointer(path) as saver:
        for thread, count in counts.items():
            found: Any = saver.get_tuple({"configurable": {"thread_id": thread}})
            messages = found.checkpoint["channel_values"]["messages"]
            assert len(messages) >= count, f"{thread}: {count} were acknowledged"
            assert [message.text.split()[1] for message in messages] == [str(n) for n in range(len(messages))]


def test_four_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    writers = [start(path, [f"p{n}-{c}" for c in range(8)], seconds=4) for n in range(4)]
    counts: dict[str, int] = {}
    for writer in writers:
        output, errors = writer.communicate(timeout=400)
        assert writer.returncode == 0, errors
        counts |= acknowledged(output)
    assert len(counts) == 32
    assert_sound(path, counts)


def test_killed_processes_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "killed.sqlite"
    counts: dict[str, int] = {}
    for round_ in range(3):
        writer = start(path, [f"r{round_}-{c}" for c in range(3)], seconds=60)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        until = time.monotonic() + 0.3
        while time.monotonic() < until or len(lines) < 3:  # each of the three, however slow it is
            lines.append(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate(timeout=400)
        counts |= acknowledged("".join(lines) + rest)
        assert_sound(path, counts)
    assert len(counts) == 9


def test_a_killed_call_is_started_and_a_finished_one_has_its_result(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    script = """
import asyncio, os, signal, sys
from langchain_core.messages import ToolMessage
from agent.persistence import open_checkpointer

async def main():
    async with open_checkpointer(sys.argv[1]) as saver:
        for call in ("paid", "paying"):
            assert await saver.journal.abegin(thread_id="t", call_id=call, tool="pay") is None
            if call == "paid":
                result = ToolMessage("receipt 1", tool_call_id=call)
                await saver.journal.afinish(thread_id="t", call_id=call, result=result)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL

    async def look() -> None:
        async with open_checkpointer(path) as saver:
            paid = await saver.journal.abegin(thread_id="t", call_id="paid", tool="pay")
            paying = await saver.journal.abegin(thread_id="t", call_id="paying", tool="pay")
        assert paid is not None
        assert paying is not None
        assert (paid.status, paid.result.text) == ("finished", "receipt 1")  # type: ignore[attr-defined]
        assert (paying.status, paying.result, paying.attempts) == ("started", None, 1)
        assert paying.owner_is_alive is False

    asyncio.run(look())
