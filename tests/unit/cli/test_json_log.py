"""A log in JSON is read by programs: every line of it is an object, and nothing that was said is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from cli_doubles import CALL, Terminal

from agent.cli.debugging import show_logs
from agent.cli.input import LineReader
from agent.cli.view import TerminalView
from agent.errors import DatabaseError
from agent.persistence import ConversationStore

LOGGERS = ("agent", "graphs", "tools")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = [(each, each.level, each.handlers[:]) for each in map(logging.getLogger, LOGGERS)]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


@pytest.mark.parametrize("graph", ["react", "approval"])
def test_every_line_is_an_object(terminal: Terminal, graph: str) -> None:
    terminal.script(CALL, "It is 345.")
    question = ("run", "What is 15 * 23?", "--model", "scripted", "--graph", graph)
    done = terminal.run("--log-format", "json", *question)
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"run", "model"} <= {line.get("kind") for line in lines}
    assert "15 * 23" not in done.stderr


def test_an_error_is_one_too(terminal: Terminal) -> None:
    done = terminal.run("--log-format", "json", "threads", "show", "nothing")
    assert done.exit_code == 1
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], "nothing" in line["message"]) == ("error", True)


def test_wrong_usage_is_one_too(terminal: Terminal) -> None:
    done = terminal.run("--log-format", "json", "threads", "list", "--nothing")
    assert done.exit_code == 2
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], "--nothing" in line["message"]) == ("error", True)


def test_an_error_that_a_chat_outlives_is_one_too(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_a_terminal(reader: LineReader) -> LineReader:
        reader.interactive = True
        return reader

    def broken(*_: Any, **__: Any) -> None:
        raise DatabaseError("the disk is gone")

    lines = iter(["/threads", "/quit"])
    monkeypatch.setattr(LineReader, "__enter__", at_a_terminal)
    monkeypatch.setattr(LineReader, "read", lambda _: next(lines))
    monkeypatch.setattr(ConversationStore, "list", broken)
    terminal.script("Hello.")
    done = terminal.run("--log-format", "json", "chat", "--model", "scripted")
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["the disk is gone"]


def test_what_a_reader_should_know_of_is_one_too(capsys: pytest.CaptureFixture[str]) -> None:
    show_logs(debug=False, log_format="json")
    TerminalView(stream=True).happened({"type": "context_trimmed", "dropped": 3, "shortened": 0})
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "warning"
    assert line["message"].startswith("the context is full: 3 old")
