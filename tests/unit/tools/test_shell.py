"""The shell: off unless allowed, asking always, and with little to see."""

from __future__ import annotations

import os
import sys

import pytest
from langchain_core.messages import ToolCall
from process_watch import gone

from tools import (
    ToolApprovalError,
    ToolPolicy,
    ToolRegistrationError,
    ToolRegistry,
    acall,
    policy_of,
    with_policy,
)
from tools.builtin import build_shell_tools, build_tools
from tools.processes import enforceable


async def run(command, directory, *, approved=True, policy=None, **options):
    (shell,) = build_shell_tools(directory, **options)
    request = ToolCall(name="run_command", args={"command": command}, id="1", type="tool_call")
    return await acall(shell, request, approved=approved, policy=policy)


async def text(command, directory, **options):
    return (await run(command, directory, **options)).message.text


def test_it_is_not_there_unless_it_was_allowed(tmp_path):
    assert "run_command" not in {tool.name for tool in build_tools(files_root=tmp_path)}
    allowed = build_tools(files_root=tmp_path, shell={"directory": tmp_path})
    assert "run_command" in {tool.name for tool in allowed}


async def test_it_asks_whatever_any_policy_says(tmp_path):
    file = tmp_path / "file"
    never = ToolPolicy(approval=False)
    (shell,) = build_shell_tools(tmp_path)
    for each in (
        shell,
        with_policy(shell, never),
        ToolRegistry([shell], policies={"run_command": never}).get("run_command"),
    ):
        assert policy_of(each).approval
        request = ToolCall(name="run_command", args={"command": f"touch {file}"}, id="1", type="tool_call")
        for policy in (None, never):
            outcome = await acall(each, request, policy=policy)
            assert isinstance(outcome.error, ToolApprovalError)
    assert not file.exists()


async def test_a_command_runs_in_its_directory_and_tells_how_it_ended(tmp_path):
    assert await text("echo hi > file; pwd", tmp_path) == str(tmp_path)
    assert (tmp_path / "file").read_text() == "hi\n"
    assert await text("cat file missing", tmp_path) == (
        "hi\ncat: missing: No such file or directory\n[It ended with status 1.]"
    )
    assert await text("true", tmp_path) == "(It printed nothing.)"
    assert await text("read x; echo got:$x", tmp_path) == "got:"  # nothing to read, and no waiting for it


async def test_secrets_of_the_environment_are_not_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    monkeypatch.setenv("BUILD_NUMBER", "17")
    shown = await text("env; cat /proc/$PPID/environ 2>&1 | tr '\\0' '\\n'", tmp_path)
    assert "hunter2" not in shown
    assert f"HOME={tmp_path}" in shown
    assert "17" not in await text("echo $BUILD_NUMBER", tmp_path)
    assert await text("echo $BUILD_NUMBER", tmp_path, environment=["BUILD_NUMBER"]) == "17"


@pytest.mark.skipif("files" not in enforceable(), reason="this system cannot limit files")
async def test_files_outside_the_directory_are_out_of_reach(tmp_path):
    (tmp_path / "secret").write_text("hidden")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    for attack in ("cat ../secret", f"cat {tmp_path}/secret", "cat link", f"cp {tmp_path}/secret .", "ls .."):
        shown = await text(attack, inside)
        assert "Permission denied" in shown
        assert "hidden" not in shown
    await text(f"touch {tmp_path}/new; rm -f {tmp_path}/secret; mv ../secret here", inside)
    assert sorted(os.listdir(tmp_path)) == ["inside", "secret"]
    for readable in ([str(tmp_path / "secret")], str(tmp_path / "secret")):
        assert await text(f"cat {tmp_path}/secret", inside, readable=readable) == "hidden"
    assert "hidden" not in await text(f"cat {tmp_path}/secret", inside, readable=str(inside))


@pytest.mark.skipif("network" not in enforceable(), reason="this system cannot limit the network")
async def test_no_network_unless_it_was_allowed(tmp_path):
    code = "import socket; socket.socket(); print('made one')"
    command = f'{sys.executable} -c "{code}"'
    assert "Permission denied" in await text(command, tmp_path)
    assert "made one" in await text(command, tmp_path, network=True)


async def test_it_ends_in_time_with_all_that_it_started(tmp_path):
    for seconds in (2, 10, 50):  # on a busy machine it says little in two seconds
        shown = await text("sleep 300 & echo $!; sleep 300", tmp_path, timeout=seconds)
        assert shown.endswith(f"[It took longer than {seconds} s and was stopped.]")
        if shown.split()[0].isdigit():
            break
    assert await gone(int(shown.split()[0]))
    left = await text("sleep 300 & (setsid sleep 300; nohup sleep 300) >/dev/null 2>&1 & echo $!", tmp_path)
    assert await gone(int(left))


async def test_much_output_is_cut(tmp_path):
    shown = await text("yes | head -c 1000000", tmp_path, max_output=1000)
    assert "[Only the first 1,000 of 1,000,000 bytes are kept.]" in shown


def test_a_directory_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ToolRegistrationError, match="no-such"):
        build_shell_tools(tmp_path / "no-such")


def test_what_is_not_enforced_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.builtin.shell.enforceable", frozenset)
    (shell,) = build_shell_tools(tmp_path)
    assert "cannot limit its access to: files, network." in shell.description
