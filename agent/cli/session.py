"""An open agent with a terminal around it: starting the engine in sight, and asking questions."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from agent.app import App, graph_of, open_app, open_store, server_directory, uses_embedded_model
from agent.cli.approvals import ask_decisions
from agent.cli.console import note, stages
from agent.cli.debugging import show_requests
from agent.cli.view import TerminalView
from agent.errors import ThreadNotFoundError
from agent.settings import Settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from langchain_core.messages import AIMessage

    from agent.cli.turns import Turn
    from agent.engines.base import EngineInfo, StageCallback

T = TypeVar("T")

_SHORT_ID = 8


class Session:
    """Runs turns on an open agent, from synchronous code.

    Args:
        app: The agent.
        runner: Owns the loop that everything runs on; Ctrl-C cancels what runs on it.
        stream: Whether answers are written while they are made.
    """

    def __init__(self, app: App, runner: asyncio.Runner, *, stream: bool) -> None:
        self.app = app
        self.streams = stream
        self.view = TerminalView(stream=stream)
        self._runner = runner

    def ask(self, thread_id: str, question: str) -> AIMessage | None:
        """Answer a question; see :meth:`agent.cli.turns.Turn.ask`."""
        turn = self.turn(thread_id)
        return self.settle(turn, turn.ask(question))

    def settle(
        self,
        turn: Turn,
        work: Coroutine[None, None, AIMessage | None],
        *,
        read: Callable[[str], str] | None = None,
    ) -> AIMessage | None:
        """Run ``work``, and ask the person about tool calls for as long as any wait.

        Args:
            turn: What ``work`` belongs to; its ``waiting`` says what is still undecided.
            work: One of the turn's methods, not yet awaited.
            read: How the person is asked; ``None`` if nobody is there, and then the calls are left waiting.
        """
        answer = self.run(work)
        while turn.waiting and read is not None:
            decisions = ask_decisions(turn.waiting, turn.problems, read=read)
            if decisions is None:
                break
            answer = self.run(turn.decide(decisions))
        return answer

    def turn(self, thread_id: str) -> Turn:
        """A turn that has not begun."""
        from agent.cli.turns import Turn

        return Turn(self.app, thread_id, self.view)

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Run ``work``; Ctrl-C cancels it and raises ``KeyboardInterrupt``."""
        self.view.wait()
        try:
            return self._runner.run(work)
        finally:
            self.view.rest()


@contextmanager
def open_session(
    settings: Settings, *, stream: bool, on_stage: StageCallback | None = None
) -> Iterator[Session]:
    """Open an agent; its engine is not started yet.

    Args:
        settings: What to open.
        stream: Whether answers are written while they are made.
        on_stage: Told about the stages of the engine's start.
    """
    import asyncio

    with open_app(settings, on_stage=on_stage, warm=True) as app, asyncio.Runner() as runner:
        yield Session(app, runner, stream=stream)


@contextmanager
def started_session(settings: Settings, *, stream: bool) -> Iterator[Session]:
    """Open an agent and start its engine, with its stages shown."""
    prepare_model(settings, in_process=not settings.warm_minutes)
    with stages("starting the engine") as shown:
        shown("preparing")
        with open_session(settings, stream=stream, on_stage=shown) as session:
            info = session.app.start()
            show_requests()
            shown.stop()
            note(f"{describe(info, session.app)}, ready in {shown.seconds:.0f} s")
            yield session


def prepare_model(settings: Settings, *, in_process: bool) -> None:
    """Fetch and convert the embedded model if need be, with a progress bar; make place on the card.

    Args:
        settings: What is going to run.
        in_process: Whether the model runs in this process, and needs the memory of one that is kept warm.
    """
    if uses_embedded_model(settings):
        from agent.catalogue.embedded import embedded_model
        from agent.catalogue.progress import progress_bar

        with progress_bar() as progress:
            embedded_model(progress=progress)
    if in_process and settings.base_url is None:
        from agent.serving.order import on_cpu

        if not on_cpu():
            from agent.serving.warm import make_place

            make_place(server_directory(settings))


def describe(info: EngineInfo, app: App) -> str:
    """The model and the engine that answer, in one line."""
    name = Path(info.model).name if Path(info.model).is_dir() else info.model
    embedded = " (embedded)" if uses_embedded_model(app.settings) else ""
    if (record := getattr(app.model.engine, "record", None)) is not None:
        where = (
            f"kept warm for {record.idle_minutes:g} min" if record.warm else f"on your server {record.url}"
        )
    else:
        where = {"in-process": "in this process", "remote": f"at {app.settings.base_url}"}.get(
            info.kind, info.kind
        )
    return f"{name}{embedded} · {info.version or 'vLLM'} {where} · tools by {app.model.protocol} protocol"


def short_id(thread_id: str) -> str:
    """The beginning of a conversation's id, as people write it."""
    return thread_id[:_SHORT_ID]


def resume_hint(thread_id: str) -> str:
    """The command that goes on with a conversation."""
    return f'{resume_command(thread_id)} "…"'


def resume_command(thread_id: str) -> str:
    """The same without the question.

    The graph is found with the conversation, and a database that was not typed where it was found before; its
    password is not for everybody to read who sees this terminal or a log of it.
    """
    from agent.persistence.locations import without_password  # late: it needs SQLAlchemy

    typed = click.get_current_context().params.get("database")
    database = f" --database {shlex.quote(without_password(typed))}" if typed else ""
    return f"vllm-agent resume {short_id(thread_id)}{database}"


def with_graph_of(thread_id: str, settings: Settings) -> Settings:
    """Settings with the graph that a conversation was continued with last, unless ``--graph`` was typed.

    Another graph could not finish what this one began. The graph of the environment and the configuration
    file is for new conversations.
    """
    if click.get_current_context().params.get("graph") is not None:
        return settings
    return replace(settings, graph=graph_of(settings, thread_id) or settings.graph)


def existing_or_new(thread: str, settings: Settings) -> str:
    """The conversation that begins so, or a new one of that very id."""
    with open_store(settings) as store:
        try:
            return store.resolve(thread)
        except ThreadNotFoundError:
            if any(known.id.startswith(thread) for known in store.list(limit=sys.maxsize)):
                raise  # it is the beginning of several
            return thread
