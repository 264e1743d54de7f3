"""``ui``: a page in the browser, for those who would rather not type in a terminal."""

from __future__ import annotations

import webbrowser

import click

from agent.app import open_app
from agent.cli.console import note
from agent.cli.debugging import show_requests
from agent.cli.options import SETTINGS, agent_options
from agent.cli.session import describe, prepare_model
from agent.settings import Settings


@click.command(epilog=SETTINGS)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    show_default=True,
    help="Port on this machine; 0 takes a free one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open it in the browser.")
@agent_options
def ui(port: int, open_browser: bool, settings: Settings) -> None:
    """Talk with an agent on a page in the browser.

    The page shows the graph with what runs in it, answers as they are made, tool calls and their results; it
    asks about calls that wait for approval, and walks through the history of a conversation, with a fork from
    any point. The conversations are those of the other commands. It is served on this machine alone, to those
    who have the token in the printed address. Ctrl-C ends it, and every conversation can be gone on with.

    \b
    Examples:
      vllm-agent ui
      vllm-agent ui --graph approval --open
    """
    from agent.ui.desk import Desk, EngineStart
    from agent.ui.server import serve

    def start() -> str:
        info = app.start()
        show_requests()
        return describe(info, app)

    def ready(address: str) -> None:
        click.echo(address)
        note("open it in a browser on this machine · Ctrl-C ends")
        engine.begin()
        if open_browser:
            webbrowser.open(address)

    prepare_model(settings, in_process=True)
    engine = EngineStart(start)
    with open_app(settings, on_stage=engine.stage) as app:
        serve(Desk(app, engine), port=port, on_ready=ready)
