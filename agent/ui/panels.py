"""The panels beside the conversation: other conversations, the graph, and the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nicegui import ui

from agent.cli.console import ago
from agent.ui.moments import moment_line
from agent.ui.rows import Row, Rows

if TYPE_CHECKING:
    from agent.persistence import Conversation, Moment


class ThreadsPanel:
    """The conversations used last.

    Args:
        on_open: Told which one was chosen; ``None`` for a new one.
    """

    def __init__(self, on_open: Callable[[str | None], object]) -> None:
        self._on_open = on_open
        ui.button("New conversation", icon="add", on_click=lambda: on_open(None), color=None).props(
            "unelevated no-caps"
        ).classes("strong wide")
        with ui.element("nav").classes("threads").props('aria-label="Conversations"'):
            self._rows = Rows(ui.element("ul"), nothing="What you talk about is kept here.", current="true")

    def show(self, conversations: Sequence[Conversation], current: str) -> None:
        """List them."""
        self._rows.show([self._row(each) for each in conversations], current)

    def _row(self, each: Conversation) -> Row:
        state = "" if each.status == "idle" else " · unfinished"
        about = f"{ago(each.updated_at)} · {each.message_count} messages{state}"
        texts = [("title", each.title or "Untitled"), ("muted", about)]
        return Row(each.id, texts, choose=lambda: self._on_open(each.id))


class GraphPanel:
    """A picture of the graph, with what runs lit."""

    def __init__(self) -> None:
        with ui.element("section").classes("panel").props('aria-labelledby="graph-title"'):
            with ui.element("h2").props('id="graph-title"'):
                ui.html("Graph", tag="span", sanitize=False)
            self._purpose = ui.label().classes("muted")
            # Our own drawing, with its names escaped. The text below says the same to those who cannot see.
            self._picture = ui.html("", sanitize=False).classes("picture")
            self._running = ui.label().classes("at-work")

    def show(self, picture: str, *, name: str, purpose: str, running: Sequence[str]) -> None:
        """Draw it."""
        self._purpose.text = purpose
        self._picture.content = picture
        self._picture.props["aria-label"] = f"Drawing of the graph {name}"
        self._picture.props["role"] = "img"
        self._running.text = f"Running: {', '.join(running)}" if running else "Nothing runs."


class HistoryPanel:
    """The checkpoints of the conversation.

    Args:
        on_look: Told which one was chosen.
    """

    def __init__(self, on_look: Callable[[Moment], object]) -> None:
        self._on_look = on_look
        with ui.element("section").classes("panel").props('aria-labelledby="history-title"'):
            with ui.element("h2").props('id="history-title"'):
                ui.html("History", tag="span", sanitize=False)
            ui.label("After every step of the graph. Look at one, and fork from there.").classes("muted")
            self._rows = Rows(
                ui.element("ol").classes("moments").props('aria-label="Checkpoints, the newest first"'),
                nothing="Nothing has happened yet.",
                current="step",
            )

    def show(self, moments: Sequence[Moment], looking: Moment | None) -> None:
        """List them, newest first."""
        rows = [self._row(each) for each in moments]
        self._rows.show(rows, looking.checkpoint_id if looking else None)

    def _row(self, moment: Moment) -> Row:
        texts = [("number", str(moment.number)), ("title", moment_line(moment))]
        return Row(moment.checkpoint_id, texts, choose=lambda: self._on_look(moment))
