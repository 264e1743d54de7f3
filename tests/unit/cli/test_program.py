"""The command as a whole: help, imports, exit codes, signals."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from cli_doubles import Terminal

from agent.app import database_location
from agent.cli.main import cli
from agent.settings import Settings, load_settings

HEAVY = ("torch", "vllm", "langchain_core", "langgraph", "sqlalchemy", "rich", "pydantic")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        # A hidden command is what its group does without a word of its own.
        found.append((path if command.hidden else (*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from agent.cli.main import cli\n"
        "try: cli.main(['--help'], prog_name='vllm-agent')\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("path", "command"), commands(cli), ids=str)
def test_every_command_explains_itself(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    if isinstance(command, click.Group):
        return
    assert f"vllm-agent {' '.join(path)}" in command.help, "no example"
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"--{parameter.name} has no help"


def test_python_dash_m_is_the_same_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "agent", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("vllm-agent, version ")


@pytest.mark.parametrize("arguments", [("nothing",), ("run",), ("threads", "list", "--nothing")])
def test_wrong_usage_is_exit_code_2(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    result = terminal.run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert result.stdout == ""


def test_help_names_the_file_of_the_conversations(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = terminal.run("threads", "list", "--help").stdout
    assert str(database_location(load_settings())) in "".join(shown.split())
    monkeypatch.setenv("VLLM_AGENT_DATABASE", "postgresql://u:secret@host/name")
    assert "secret" not in terminal.run("threads", "list", "--help").stdout
    monkeypatch.setenv("VLLM_AGENT_MAX_TOKENS", "many")  # said by the command itself, not by its help
    assert terminal.run("threads", "list", "--help").exit_code == 0


def test_help_tells_of_every_setting(terminal: Terminal) -> None:
    shown = terminal.run("run", "--help").stdout
    options = shown.replace("-", "_")
    assert [each.name for each in fields(Settings) if each.name not in options and each.name != "vllm"] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said_in_a_line(terminal: Terminal, unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "models", "cards"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: what is printed or stored cannot be written: No space left on device"
    ]


def test_a_full_disk_is_named_by_the_file(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/a")

    monkeypatch.setattr("agent.cli.graph.build_graph", full)
    said = terminal.run("graph", "draw", "react").stderr
    assert said == "error: /tmp/a cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", [("run",), ("resume", "3f2a")])
def test_a_question_without_quotes_is_told_to_have_some(terminal: Terminal, command: tuple[str, ...]) -> None:
    refused = terminal.run(*command, "What", "is", "15")
    assert refused.exit_code == 2
    assert "in quotes" in refused.stderr


def test_an_option_is_called_as_it_was_typed(terminal: Terminal) -> None:
    assert "--base-url = ''" in terminal.run("run", "Hi", "--base-url", "").stderr
