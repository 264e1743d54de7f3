"""``demo``: it fails honestly. That it works is tested on the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_doubles import CALL, Terminal

import agent.catalogue.embedded
import agent.cli.demo
from agent.engines import Reply


@pytest.fixture(autouse=True)
def no_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.catalogue.embedded, "embedded_model", lambda **_: Path("scripted"))


def test_a_model_that_calls_no_tools_is_a_failure(terminal: Terminal) -> None:
    terminal.script("It is 345.", "It is late.")
    result = terminal.run("demo")
    assert result.exit_code == 1
    assert "it made 0 calls" in result.stderr
    assert "resumes" not in result.stdout


def test_calls_that_fail_do_not_count(terminal: Terminal) -> None:
    bad = Reply(tool_calls=[{"name": "calculator", "arguments": {"expression": "now"}}])
    terminal.script(CALL, "It is 345.", bad, "Who knows?")
    result = terminal.run("demo")
    assert result.exit_code == 1
    assert "it made 2 calls, and 1 of them succeeded" in result.stderr


def test_a_second_process_that_fails_is_a_failure(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.cli.demo.sys, "executable", "/bin/false")
    terminal.script(CALL, "It is 345.", CALL, "It is late.")
    result = terminal.run("demo")
    assert result.exit_code == 1
    assert "failed (exit code 1)" in result.stderr
