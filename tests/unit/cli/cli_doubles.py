"""A terminal whose commands talk to a scripted engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import agent.app
from agent import ChatVLLM
from agent.cli.main import cli
from agent.engines import Reply, ScriptedEngine

CALL = Reply(tool_calls=[{"name": "calculator", "arguments": {"expression": "15 * 23"}}])


class Terminal:
    """Runs commands one after the other, as a person would."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.engine: ScriptedEngine | None = None
        self._monkeypatch = monkeypatch

    def script(self, *replies: Any) -> ScriptedEngine:
        """What the model of the next command answers."""
        engine = self.engine = ScriptedEngine(list(replies))
        self._monkeypatch.setattr(agent.app, "build_model", lambda settings, **_: ChatVLLM(engine=engine))
        return engine

    def run(self, *arguments: str, input: str | None = None) -> Result:
        """Run a command; an exception that is not ours fails the test."""
        result = CliRunner().invoke(cli, list(arguments), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, input: str | None = None) -> Any:
        """What a command prints with ``--json``; it must succeed."""
        result = self.run(*arguments, "--json", input=input)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def ask(self, question: str, *replies: Any, thread: str | None = None) -> str:
        """Have a conversation and return its id."""
        self.script(*replies)
        where = ("--thread", thread) if thread else ()
        return str(self.json("run", question, "--model", "scripted", *where)["thread_id"])
