"""What all pages share: the agent by graph, the conversations that are open, and the engine that starts."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.app import GRAPH_KEY
from agent.errors import ConfigurationError, ThreadNotFoundError
from agent.ui.talk import Talk
from agent.ui.transcript import Transcript
from graphs.drawing import draw_svg
from graphs.registry import GRAPHS

if TYPE_CHECKING:
    from agent.app import App
    from agent.persistence import Conversation, Moment

_LISTED = 50
_MOMENTS = 200


class EngineStart:
    """Starts the engine on a thread of its own, so that the page is there at once.

    Args:
        start: Starts it, and returns what runs, in one line.
    """

    def __init__(self, start: Callable[[], str]) -> None:
        self._start = start
        self._ended: Future[None] = Future()
        self.line = "The model is starting"
        """What a person is told about it."""
        self.state: str = "starting"
        """``starting``, ``ready`` or ``failed``."""

    def begin(self) -> None:
        """Start, and return at once."""
        threading.Thread(target=self._run, name="engine-start", daemon=True).start()

    def stage(self, stage: str) -> None:
        """A stage of the start begins; called from any thread."""
        if self.state == "starting":
            self.line = f"The model is starting: {stage}"

    async def wait(self) -> None:
        """Return once it runs.

        Raises:
            AgentError: It does not start.
        """
        # Shielded: whoever gives up waiting does not take it from the others.
        await asyncio.shield(asyncio.wrap_future(self._ended))

    def _run(self) -> None:
        try:
            self.line, self.state = self._start(), "ready"
            self._ended.set_result(None)
        except Exception as error:  # carried to whoever waits
            self.line, self.state = f"The model did not start: {error}", "failed"
            self._ended.set_exception(error)


@dataclass(frozen=True)
class Past:
    """A conversation as it was at one of its checkpoints."""

    moment: Moment
    transcript: Transcript


class Desk:
    """Opens conversations, and gives everything a page needs; its methods never block the loop.

    Args:
        app: The agent, with the graph that new conversations begin with.
        engine: Its engine, starting.
    """

    def __init__(self, app: App, engine: EngineStart) -> None:
        self.engine = engine
        self.store = app.store
        self.default_graph = app.settings.graph
        self.dark: bool | None = None
        """The theme that was chosen last; ``None`` follows the system."""
        self._apps = {app.settings.graph: app}
        self._app = app
        self._talks: dict[str, Talk] = {}
        self._opening = asyncio.Lock()

    async def open(self, thread_id: str | None = None, *, graph: str | None = None) -> Talk:
        """A conversation, as it is now; a new one if ``thread_id`` is not given.

        Args:
            thread_id: The whole id.
            graph: What answers from now on. Left out, the graph that answered last; what is unfinished is
                always finished by the graph that began it.

        Raises:
            ThreadNotFoundError: There is no such conversation.
            ConfigurationError: There is no such graph.
        """
        if thread_id is None:
            app = await self._agent(graph or self.default_graph)
            return self._new(app, str(uuid.uuid4()), Transcript(), unfinished=False)
        async with self._opening:  # two pages that open one at once show the same
            return await self._opened(thread_id, graph)

    def keep(self, talk: Talk) -> None:
        """Remember a new conversation, now that it has begun."""
        self._talks.setdefault(talk.thread_id, talk)

    def current(self, talk: Talk) -> Talk:
        """What shows this conversation now: another page may have given it another graph."""
        return self._talks.get(talk.thread_id, talk)

    async def conversations(self) -> Sequence[Conversation]:
        """Those used last."""
        return await asyncio.to_thread(self.store.list, limit=_LISTED)

    async def history(self, thread_id: str) -> Sequence[Moment]:
        """The checkpoints of a conversation, newest first; none if it has not begun."""
        try:
            return await asyncio.to_thread(self.store.history, thread_id, limit=_MOMENTS)
        except ThreadNotFoundError:
            return []

    async def past(self, thread_id: str, moment: Moment) -> Past:
        """The conversation at one of its checkpoints.

        Raises:
            ThreadNotFoundError: It has no such checkpoint any more.
        """
        found = await asyncio.to_thread(self.store.get, thread_id, checkpoint_id=moment.checkpoint_id)
        return Past(moment, Transcript.of(found.messages))

    async def fork(self, thread_id: str, moment: Moment) -> str:
        """Copy a conversation as it was, and return the copy's id.

        Raises:
            ThreadNotFoundError: It has no such checkpoint any more.
        """
        return await asyncio.to_thread(self.store.fork, thread_id, checkpoint_id=moment.checkpoint_id)

    async def picture(self, talk: Talk) -> str:
        """The graph of a conversation as SVG, with the nodes lit that run."""
        return await asyncio.to_thread(draw_svg, talk.app.graph, lit=talk.running)

    def refusal(self, graph: str) -> str | None:
        """Why a graph cannot answer here; ``None`` if it can."""
        kind = GRAPHS.get(graph)
        if kind is not None and kind.needs_documents and self._app.settings.documents is None:
            return "This graph answers from documents: start with “vllm-agent ui --documents FOLDER”."
        return None

    async def close(self) -> None:
        """End every run; they can be gone on with."""
        await asyncio.gather(*(talk.close() for talk in self._talks.values()))

    async def _opened(self, thread_id: str, graph: str | None) -> Talk:
        known = self._talks.get(thread_id)
        if known is not None and known.state != "idle":
            return known
        turns = known.turns if known is not None else 0
        found = await asyncio.to_thread(self.store.get, thread_id)
        unfinished = found.status != "idle"
        last = await asyncio.to_thread(self.store.label, found.id, GRAPH_KEY)
        begun_with = last if last is not None and last in GRAPHS else self.default_graph
        app = await self._agent(begun_with if unfinished else graph or begun_with)
        if known is not None and (known.state, known.turns) != ("idle", turns):
            return known  # another page has asked there in between, and what was read is old
        if known is not None and not unfinished and graph in (None, known.graph):
            known.transcript.settle(found.messages)  # another process may have gone on with it
            return known
        talk = self._new(app, found.id, Transcript.of(found.messages), unfinished=unfinished)
        if unfinished:
            await talk.look()
        self._talks[found.id] = talk
        return talk

    def _new(self, app: App, thread_id: str, transcript: Transcript, *, unfinished: bool) -> Talk:
        return Talk(app, thread_id, transcript, unfinished=unfinished, ready=self.engine.wait)

    async def _agent(self, graph: str) -> App:
        if graph not in GRAPHS:
            raise ConfigurationError(f"no graph is called {graph!r} (there are: {', '.join(GRAPHS)})")
        if graph not in self._apps:
            settings = replace(self._app.settings, graph=graph)
            self._apps[graph] = await asyncio.to_thread(self._app.variant, settings)
        return self._apps[graph]
