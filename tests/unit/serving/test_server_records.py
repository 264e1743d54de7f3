"""The files of this user's servers: whose they are, who can read them, and which still count."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.errors import ConfigurationError
from agent.serving.records import ServerDirectory, ServerRecord, process_birth, this_machine


def record(**changes: Any) -> ServerRecord:
    """A server whose process is this one."""
    values: dict[str, Any] = {
        "id": "abcd1234",
        "model": "/models/mine",
        "arguments": {"seed": 1},
        "url": "http://127.0.0.1:8000",
        "pid": os.getpid(),
        "created": process_birth(os.getpid()),
        "machine": this_machine(),
        "started": "2026-11-24T23:00:00+00:00",
        "version": "1",
        "keys": ("secret",),
    }
    return ServerRecord(**{**values, **changes})


@pytest.fixture
def servers(tmp_path: Path) -> ServerDirectory:
    return ServerDirectory(tmp_path / "home" / "servers")


def test_a_record_comes_back_as_it_was_written(servers: ServerDirectory) -> None:
    servers.write(record())
    assert servers.records() == [record()]


def test_nobody_else_can_read_them(servers: ServerDirectory) -> None:
    servers.path.mkdir(parents=True, mode=0o755)  # as an older version might have left it
    servers.path.chmod(0o755)
    servers.write(record())
    assert servers.path.stat().st_mode & 0o777 == 0o700
    assert (servers.path / "abcd1234.json").stat().st_mode & 0o777 == 0o600


def test_the_key_is_not_shown(servers: ServerDirectory) -> None:
    assert "secret" not in repr(record())


def test_a_directory_of_another_user_is_refused(
    servers: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.open()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match=r"belongs to another user.*VLLM_AGENT_HOME"):
        servers.open()


def test_a_directory_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ServerDirectory(tmp_path / "file" / "servers").open()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1},  # no such process
        {"created": 1.0},  # the number was given to another process since
        {"machine": f"{platform.node()} before-the-last-boot"},
    ],
)
def test_the_file_of_a_server_that_is_gone_goes_too(
    servers: ServerDirectory, changes: dict[str, Any]
) -> None:
    servers.write(gone := record(**changes))
    servers.facts(gone).write_text("{}")
    assert servers.records() == []
    assert list(servers.path.iterdir()) == []


def test_an_engine_that_a_killed_server_left_behind_is_ended(servers: ServerDirectory) -> None:
    code = "import time; print('here', flush=True); time.sleep(60)"

    def start(identity: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "VLLM_AGENT_SERVER_ID": identity}
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        return child

    left, other = start("abcd1234"), start("another1")
    try:
        servers.write(record(pid=2**22 + 1, one_process=False))
        assert servers.records() == []
        assert not psutil.pid_exists(left.pid)
        assert psutil.pid_exists(other.pid)
    finally:
        for child in (left, other):
            child.kill()
            child.communicate()


def test_a_server_on_another_machine_is_neither_used_nor_forgotten(servers: ServerDirectory) -> None:
    servers.write(record(machine="elsewhere"))
    assert servers.records() == []
    assert (servers.path / "abcd1234.json").exists()


def test_what_is_no_record_is_passed_over(servers: ServerDirectory) -> None:
    servers.write(record())
    (servers.path / "broken.json").write_text("{")
    (servers.path / "other.json").write_text(json.dumps({"id": "x"}))
    assert [each.id for each in servers.records()] == ["abcd1234"]


def test_logs_of_servers_that_run_and_recent_ones_are_kept(servers: ServerDirectory) -> None:
    servers.write(record())
    for name in ("abcd1234", "recent", "old"):
        servers.log(name).write_text("")
        os.utime(servers.log(name), (1000, 1000) if name != "recent" else (5000, 5000))
    servers.remove_old_logs(before=3000)
    assert sorted(path.name for path in servers.path.glob("*.log")) == ["abcd1234.log", "recent.log"]


def test_the_latest_comes_first(servers: ServerDirectory) -> None:
    servers.write(record())
    servers.write(replace(record(), id="later", started="2026-11-25T00:00:00+00:00"))
    assert [each.id for each in servers.records()] == ["later", "abcd1234"]
