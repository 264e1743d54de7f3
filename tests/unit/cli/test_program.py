"""The command as a whole: help, imports, exit codes, signals."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from cli_doubles import Terminal

from agent.cli.main import cli

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
