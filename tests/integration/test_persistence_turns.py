"""Two runs on one conversation: by choice they wait for each other, across loops, threads and processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConflictError, DatabaseError
from agent.persistence import open_checkpointer

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from agent.persistence import open_checkpointer
with open_checkpointer(sys.argv[1]) as saver, saver.turn("t"):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return ":memory:" if request.param == "memory" else str(tmp_path / "c.sqlite")


async def test_runs_take_turns(where: str) -> None:
    async with open_checkpointer(where, connections=2) as saver:
        working: list[int] = []
        most = 0

        async def run(number: int) -> None:
            nonlocal most
            async with saver.turn("t", timeout=60):
                working.append(number)
                most = max(most, len(working))
                await asyncio.sleep(0.02)
                working.remove(number)

        await asyncio.gather(*(run(number) for number in range(8)))
        assert most == 1
        async with saver.turn("t"), saver.turn("other", timeout=0):
            with pytest.raises(ConflictError, match="another run has been working on conversation 't'"):
                async with saver.turn("t", timeout=0.1):
                    pass


def test_a_place_where_nothing_can_be_claimed_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite-turns").mkdir()
    said = r"c\.sqlite-turns cannot be locked: Is a directory"
    with open_checkpointer(tmp_path / "c.sqlite") as saver, pytest.raises(DatabaseError, match=said):
        saver.turn("t").__enter__()


def test_threads_wait(where: str) -> None:
    with open_checkpointer(where) as saver:
        with saver.turn("t"):
            entered: list[float] = []

            def wait() -> None:
                with saver.turn("t", timeout=60):
                    entered.append(time.monotonic())

            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(0.2)
            assert not entered
        thread.join(60)
        assert len(entered) == 1


@pytest.mark.parametrize("where", ["sqlite", "postgresql"], indirect=True)
def test_a_killed_holder_lets_go(where: str) -> None:
    command: list[Any] = [sys.executable, "-c", HOLDER, where]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with open_checkpointer(where) as saver:
            with pytest.raises(ConflictError), saver.turn("t", timeout=0.1):
                pass
            holder.kill()
            with saver.turn("t", timeout=60):
                pass


def test_the_file_of_locks_is_private(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path / "c.sqlite") as saver, saver.turn("t"):
        assert (tmp_path / "c.sqlite-turns").stat().st_mode & 0o777 == 0o600
