"""The page of one browser tab: puts the panels together, and follows the conversation that is open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicegui import ui

from agent.errors import AgentError
from agent.ui.approvals import ApprovalForm
from agent.ui.banner import Banner
from agent.ui.composer import Composer
from agent.ui.desk import Desk, Past
from agent.ui.entries import Entries
from agent.ui.panels import GraphPanel, HistoryPanel, ThreadsPanel
from agent.ui.topbar import TopBar
from graphs.registry import GRAPHS

if TYPE_CHECKING:
    from agent.persistence import Moment
    from agent.ui.talk import Talk
    from graphs.decisions import Decision

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
BEHAVIOUR = (Path(__file__).parent / "behaviour.js").read_text(encoding="utf-8")
_TICK = 0.1
"""Seconds between two looks at the conversation: what a reader takes for at once."""
_SUGGESTIONS = ("What is 15 * 23?", "What time is it in Tokyo?")


class Page:
    """One tab.

    Args:
        desk: What all tabs share.
        talk: The conversation that it opens with.
    """

    def __init__(self, desk: Desk, talk: Talk) -> None:
        self._desk = desk
        self._talk = talk
        self._past: Past | None = None
        self._seen: tuple[Any, ...] = ()
        self._drawn: tuple[Any, ...] = ()
        self._listed: tuple[Any, ...] = ()
        self._told = ""

    async def build(self) -> None:
        """Make the widgets, and follow the conversation from now on."""
        ui.add_css(STYLE)
        ui.add_head_html(f"<script>{BEHAVIOUR}</script>")
        self._bar = TopBar(self._desk, on_graph=self._choose_graph)
        with (
            ui.left_drawer(bordered=True, value=None)
            .props("width=280 breakpoint=1100")
            .classes("side") as left
        ):
            self._threads = ThreadsPanel(self._open)
        with (
            ui.right_drawer(bordered=True, value=None)
            .props("width=340 breakpoint=1100")
            .classes("side") as right
        ):
            self._graph = GraphPanel()
            self._history = HistoryPanel(self._look)
        self._bar.drawers(left, right)
        with ui.element("div").classes("conversation"):
            with ui.element("h1").classes("unseen"):
                ui.html("Conversation", tag="span", sanitize=False)
            self._banner = Banner()
            self._banner.offer("Back to now", self._back)
            self._banner.offer("Fork from here", self._fork, icon="call_split", strong=True)
            self._empty = self._build_empty()
            self._entries = Entries()
            self._approvals = ApprovalForm(self._decide)
            self._unfinished = Banner()
            self._unfinished.offer("Go on", self._go_on, strong=True)
        self._composer = Composer(on_ask=self._ask, on_stop=self._stop)
        self._announcer = (
            ui.label().classes("unseen").props('role="status" aria-live="polite" id="announcer"')
        )
        await self.follow()
        ui.timer(_TICK, self.follow)

    async def follow(self) -> None:
        """Bring everything up to date that has changed."""
        talk, past = self._current(), self._past
        self._composer.engine(self._desk.engine.line, self._desk.engine.state)
        seen = (talk, talk.revision, past)
        if seen != self._seen:
            self._seen = seen
            self._show_conversation()
        drawn = (talk.graph, talk.running)
        if drawn != self._drawn:
            self._drawn = drawn
            await self._draw()
        listed = (talk.thread_id, talk.turns, past)
        if listed != self._listed:
            self._listed = listed
            await self._list()

    def _current(self) -> Talk:
        self._talk = self._desk.current(self._talk)
        return self._talk

    # What a person does

    def _ask(self, question: str) -> None:
        talk = self._current()
        if refusal := self._desk.refusal(talk.graph):
            ui.notify(refusal, type="warning")
            return
        self._desk.keep(talk)
        talk.ask(question)
        self._address()

    def _decide(self, decisions: Mapping[str, Decision]) -> None:
        self._talk.decide(decisions)
        self._composer.focus()

    async def _open(self, thread_id: str | None) -> None:
        async def work() -> None:
            self._switch(await self._desk.open(thread_id, graph=None if thread_id else self._talk.graph))

        await self._trying(work)

    async def _choose_graph(self, graph: str) -> None:
        async def work() -> None:
            known = self._talk.thread_id if self._talk.begun else None
            self._switch(await self._desk.open(known, graph=graph))

        if graph != self._talk.graph:
            await self._trying(work)

    async def _look(self, moment: Moment) -> None:
        async def work() -> None:
            self._past = await self._desk.past(self._talk.thread_id, moment)
            self._told = f"Looking at checkpoint {moment.number}."

        await self._trying(work)

    async def _fork(self) -> None:
        async def work() -> None:
            if self._past is not None:
                made = await self._desk.fork(self._talk.thread_id, self._past.moment)
                self._switch(await self._desk.open(made))
                self._told = "This is a copy; the conversation it comes from is as it was."

        await self._trying(work)

    def _stop(self) -> None:
        self._talk.stop()

    def _go_on(self) -> None:
        self._talk.go_on()

    def _back(self) -> None:
        self._past = None

    async def _trying(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something; an error of ours becomes a message."""
        try:
            await work()
        except AgentError as error:
            ui.notify(str(error), type="negative")
        await self.follow()

    def _switch(self, talk: Talk) -> None:
        self._talk, self._past = talk, None
        self._told = "New conversation." if not talk.transcript.entries else "Conversation opened."
        self._address()
        self._composer.focus()

    def _address(self) -> None:
        """Let the address name the conversation, so that loading the page anew opens it again."""
        ui.navigate.history.replace(f"/?thread={self._talk.thread_id}" if self._talk.begun else "/")

    # What is shown

    def _show_conversation(self) -> None:
        talk, past = self._talk, self._past
        transcript = past.transcript if past else talk.transcript
        self._entries.show(transcript)
        self._empty.visible = not transcript.entries and past is None
        self._banner.show(
            f"This is checkpoint {past.moment.number}: the conversation as it was then." if past else None
        )
        asking = self._approvals.show([] if past else talk.waiting, talk.problems)
        unfinished = past is None and talk.state == "unfinished"
        self._unfinished.show("The last answer was not finished." if unfinished else None)
        self._composer.show(talk.state, looking=past is not None)
        self._bar.show(talk.graph, locked=talk.state != "idle" or past is not None)
        if talk.announcement:
            self._told, talk.announcement = talk.announcement, ""
        self._announcer.text = self._told
        if asking:
            self._approvals.focus()

    async def _draw(self) -> None:
        graph, running = self._drawn
        picture = await self._desk.picture(self._talk)
        if self._drawn == (graph, running):  # a later one may have been quicker
            self._graph.show(picture, name=graph, purpose=GRAPHS[graph].description, running=running)

    async def _list(self) -> None:
        listed = self._listed
        conversations = await self._desk.conversations()
        moments = await self._desk.history(self._talk.thread_id)
        if self._listed == listed:  # a later one may have been quicker
            self._threads.show(conversations, self._talk.thread_id)
            self._history.show(moments, self._past.moment if self._past else None)

    def _build_empty(self) -> ui.element:
        with ui.element("div").classes("empty") as box:
            with ui.element("h2"):
                ui.html("What would you like to know?", tag="span", sanitize=False)
            ui.label("The model may call tools; you see each call, and what came of it.").classes("muted")
            with ui.element("div").classes("suggestions"):
                for each in _SUGGESTIONS:
                    ui.button(each, on_click=lambda each=each: self._ask(each), color=None).props(
                        "outline no-caps"
                    ).classes("quiet")
        return box
