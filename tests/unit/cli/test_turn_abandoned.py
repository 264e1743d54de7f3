"""What becomes of an earlier turn when a new one cannot begin."""

from __future__ import annotations

import asyncio

import pytest
from cli_doubles import CALL, Terminal

from agent.app import App, open_app
from agent.cli.turns import Turn
from agent.cli.view import TerminalView
from agent.errors import ConfigurationError
from agent.settings import load_settings


def turn_of(app: App) -> Turn:
    return Turn(app, "t", TerminalView(stream=False))


def test_a_question_in_between_does_not_decide_about_calls_that_wait(terminal: Terminal) -> None:
    terminal.script(CALL, "It is 345.")

    async def talk(app: App) -> None:
        await turn_of(app).ask("What is 15 * 23?")
        between = turn_of(app)
        with pytest.raises(ConfigurationError, match="give them first"):
            await between.ask("And the time?")
        await between.abandon("no answer, because of an error")
        later = turn_of(app)
        await later.finish()
        assert [call["name"] for call in later.waiting] == ["calculator"]

    with open_app(load_settings({"graph": "approval"})) as app:
        asyncio.run(talk(app))


def test_a_call_that_waits_outlives_an_engine_that_does_not_start(terminal: Terminal) -> None:
    terminal.script(CALL, "It is 345.")

    async def talk(app: App) -> None:
        await turn_of(app).ask("What is 15 * 23?")
        await turn_of(app).abandon("no answer, because of an error")  # nothing could be asked of the model
        later = turn_of(app)
        await later.finish()
        assert later.waiting
        await later.abandon("stopped by the user")  # it was this turn that asked about it
        last = turn_of(app)
        await last.finish()
        assert not last.waiting

    with open_app(load_settings({"graph": "approval"})) as app:
        asyncio.run(talk(app))
