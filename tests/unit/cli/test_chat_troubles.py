"""What a chat outlives: errors of its commands, and Ctrl-C at a bad moment."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from cli_doubles import Terminal
from click.testing import Result

from agent.cli.input import LineReader
from agent.cli.turns import Turn
from agent.errors import DatabaseError
from agent.persistence import ConversationStore


@pytest.mark.parametrize("command", ["/threads", "/open x"])
def test_an_error_of_a_command_does_not_end_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise DatabaseError("the disk is gone")

    monkeypatch.setattr(ConversationStore, "list", broken)
    monkeypatch.setattr(ConversationStore, "resolve", broken)
    result = _typed(terminal, monkeypatch, command)
    assert "the disk is gone" in result.stderr


def test_ctrl_c_does_not_reach_an_answer_that_is_being_kept(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Turn.abandon

    async def stopped(self: Turn, *_: Any) -> None:
        await Turn._state(self)
        raise KeyboardInterrupt

    async def keep_slowly(self: Turn, reason: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await keep(self, reason)

    monkeypatch.setattr(Turn, "ask", stopped)
    monkeypatch.setattr(Turn, "abandon", keep_slowly)
    terminal.script("Hello.")
    result = terminal.run("chat", "--model", "scripted", input="Why?\n/help\n")
    assert result.exit_code == 0
    assert "what was said is kept" in result.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DatabaseError("no answer")])
def test_an_answer_that_cannot_be_kept_does_not_end_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def stopped(*_: Any) -> None:
        raise error

    async def broken(*_: Any) -> None:
        raise DatabaseError("the disk is gone")

    monkeypatch.setattr(Turn, "ask", stopped)
    monkeypatch.setattr(Turn, "abandon", broken)
    result = _typed(terminal, monkeypatch, "Why?")
    assert "error: the disk is gone" in result.stderr
    assert "is kept" not in result.stderr


def _typed(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, line: str) -> Result:
    """What a chat says to a line at a terminal, after which it still obeys."""
    lines = iter([line, "/help", "/quit"])
    monkeypatch.setattr(LineReader, "read", lambda _: next(lines))
    monkeypatch.setattr(LineReader, "__enter__", _at_a_terminal)
    monkeypatch.setattr("agent.cli.chat._Chat._exists", lambda *_: False)
    terminal.script("Hello.")
    result = terminal.run("chat", "--model", "scripted")
    assert result.exit_code == 0
    assert "Ctrl-C stops an answer" in result.stdout
    return result


def _at_a_terminal(reader: LineReader) -> LineReader:
    reader.interactive = True
    return reader
