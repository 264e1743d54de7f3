"""When the disk is full or fails: a clear error, nothing half-written, and the next attempt works."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint

from agent.errors import DatabaseError
from agent.persistence import ConversationStore, SQLSaver, open_checkpointer


def put(saver: SQLSaver, config: Any, text: str) -> Any:
    checkpoint = empty_checkpoint()
    version = saver.get_next_version(None, None)
    checkpoint["channel_values"] = {"messages": [HumanMessage(text)], "other": text[::-1]}
    checkpoint["channel_versions"] = {"messages": version, "other": version}
    return saver.put(config, checkpoint, {"source": "loop"}, {"messages": version, "other": version})


def fill_until_it_fails(saver: SQLSaver) -> tuple[list[Any], DatabaseError]:
    stored: list[Any] = []
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    for _ in range(1000):
        try:
            config = put(saver, config, "x" * 20_000)
        except DatabaseError as error:
            return stored, error
        stored.append(config)
    pytest.fail("it never became full")


def assert_whole(path: Path, saver: SQLSaver, stored: list[Any]) -> None:
    found = list(saver.list({"configurable": {"thread_id": "t"}}))
    assert [each.config for each in reversed(found)] == stored
    assert all(set(each.checkpoint["channel_values"]) == {"messages", "other"} for each in found)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        (pytest.fail if "CI" in os.environ else pytest.skip)("a small disk can only be mounted by root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_disk_full(small_disk: Path) -> None:
    path = small_disk / "c.sqlite"
    with open_checkpointer(path) as saver:
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 500_000)
        stored, error = fill_until_it_fails(saver)
        assert "full" in str(error)
        assert "make room" in str(error)
        assert str(path) in str(error)
        assert ConversationStore(saver).get("t").checkpoint_id == stored[-1]["configurable"]["checkpoint_id"]
        assert_whole(path, saver, stored)
        ballast.unlink()
        stored.append(put(saver, stored[-1], "there is room again"))
        assert_whole(path, saver, stored)


def test_file_may_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with open_checkpointer(path) as saver:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            stored, error = fill_until_it_fails(saver)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "check its space" in str(error)
        stored.append(put(saver, stored[-1], "it may grow again"))
        assert_whole(path, saver, stored)


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with open_checkpointer(path) as saver:
        put(saver, {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, "x" * 50_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatabaseError, match=r"malformed \(the file is damaged"), open_checkpointer(path):
        pass


def test_overwritten_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with open_checkpointer(path) as saver:
        put(saver, config, "x" * 50_000)
    content = bytearray(path.read_bytes())
    content = content.replace(b"x" * 1000, b"\xc1" * 1000)
    path.write_bytes(content)
    with open_checkpointer(path) as saver, pytest.raises(DatabaseError, match=r"damaged|malformed"):
        saver.get_tuple(config)


def test_more_at_once_than_connections(tmp_path: Path) -> None:
    import asyncio

    async def main() -> None:
        async with open_checkpointer(tmp_path / "c.sqlite", connections=1, timeout=20) as saver:
            config: Any = {"configurable": {"thread_id": "t"}}
            assert await asyncio.gather(*(saver.aget_tuple(config) for _ in range(50))) == [None] * 50

    asyncio.run(main())
