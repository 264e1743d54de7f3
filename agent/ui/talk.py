"""One conversation that is open: what it shows, whether it runs, and what it waits for.

It belongs to the server and not to a page: a run goes on when its page is closed or loaded anew, and two
pages that show one conversation show the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal

from agent.cli.turns import Turn
from agent.errors import AgentError
from agent.ui.transcript import Transcript
from tools.errors import ToolError

if TYPE_CHECKING:
    from agent.app import App, Snapshot
    from graphs.decisions import Decision, WaitingCall

TalkState = Literal["idle", "running", "waiting", "unfinished"]


class Talk:
    """Runs the turns of one conversation, one at a time.

    Args:
        app: The agent, with the graph that answers.
        thread_id: The conversation; it need not exist yet.
        transcript: What was said so far.
        unfinished: Whether an earlier process left a turn without its end.
        ready: Returns once the engine runs; its errors are shown.
    """

    def __init__(
        self,
        app: App,
        thread_id: str,
        transcript: Transcript,
        *,
        unfinished: bool,
        ready: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        self.app = app
        self.thread_id = thread_id
        self.transcript = transcript
        self.state: TalkState = "unfinished" if unfinished else "idle"
        self.waiting: list[WaitingCall] = []
        """Calls that wait for a decision."""
        self.problems: list[str] = []
        """What was wrong with the decisions given so far."""
        self.announcement = ""
        """What a screen reader should say next."""
        self.turns = 0
        """Grows with the end of every run: the lists of conversations and checkpoints are then old."""
        self._nodes: Counter[str] = Counter()
        self._revision = 0
        self._ready = ready
        self._turn = Turn(app, thread_id, transcript, steps=self)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def graph(self) -> str:
        """The name of the graph that answers."""
        return self.app.settings.graph

    @property
    def running(self) -> tuple[str, ...]:
        """The nodes that run now."""
        return tuple(sorted(name for name, count in self._nodes.items() if count > 0))

    @property
    def begun(self) -> bool:
        """Whether anything was said."""
        return self.turns > 0 or bool(self.transcript.entries)

    @property
    def revision(self) -> tuple[int, int]:
        """Changes with everything that a page shows of this."""
        return self._revision, self.transcript.revision

    # What the graph tells (Steps)

    def entered(self, node: str) -> None:
        """A node begins."""
        self._nodes[node] += 1
        self._revision += 1

    def left(self, node: str) -> None:
        """A node ends."""
        self._nodes[node] -= 1
        self._revision += 1

    # What a person does; each returns at once, and does nothing while a run goes on

    def ask(self, question: str) -> None:
        """Answer a question."""
        if self.state == "idle" and question.strip():
            self.transcript.asked(question.strip())
            self._start(lambda: self._turn.ask(question.strip()), "Working on the answer.")

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Go on with the calls that wait."""
        if self.state == "waiting" and decisions:
            self._start(lambda: self._turn.decide(decisions), "Going on with your decisions.")

    def go_on(self) -> None:
        """Run what was left unfinished to its end."""
        if self.state == "unfinished":
            self._start(self._turn.finish, "Going on with what was left unfinished.")

    def stop(self) -> None:
        """End the run that goes on; what was said is kept."""
        if self._task is not None and self.state == "running" and not self._stopping:
            self._stopping = True  # once: a second one would end what keeps the answer
            self._task.cancel()

    async def look(self) -> None:
        """Find out whether an unfinished conversation waits for decisions, without running anything.

        Raises:
            AgentError: The conversation cannot be read.
        """
        self._looked(await self._stored())

    async def close(self) -> None:
        """End the run, and leave the conversation as a killed process would: it can be gone on with."""
        if self._task is not None and not self._task.done():
            self._task.cancel("closing")
            await asyncio.gather(self._task, return_exceptions=True)

    # Parts

    def _start(self, work: Callable[[], Coroutine[None, None, Any]], saying: str) -> None:
        self.state, self.announcement, self._stopping = "running", saying, False
        self._revision += 1
        self._task = asyncio.create_task(self._run(work), name=f"talk-{self.thread_id}")

    async def _run(self, work: Callable[[], Coroutine[None, None, Any]]) -> None:
        self.waiting, self.problems = [], []
        try:
            await self._ready()
            answer = await work()
            await self._settle()
            self.state = "waiting" if self.waiting else "idle"
            self.announcement = _waiting_words(len(self.waiting)) or (answer.text if answer else "Done.")
        except asyncio.CancelledError as cancelled:
            if cancelled.args == ("closing",):
                raise
            await self._stopped()
        except (AgentError, ToolError) as error:
            await self._failed(str(error))
        except Exception as error:  # a graph or tool of the user's own: the page lives on
            await self._failed(f"{type(error).__name__}: {error}")
        finally:
            if self.state == "running":  # it could not even be seen how far it came
                self.state = "unfinished"
            self._nodes.clear()
            self.turns += 1
            self._revision += 1

    async def _stored(self) -> Snapshot:
        return await self.app.graph.aget_state(self.app.thread(self.thread_id))

    def _looked(self, state: Snapshot) -> None:
        from graphs.decisions import waiting_calls, waiting_problems

        self.waiting, self.problems = waiting_calls(state), waiting_problems(state)
        self.transcript.waits(self.waiting)
        if self.waiting:
            self.state = "waiting"
        self._revision += 1

    async def _settle(self) -> None:
        state = await self._stored()
        self.transcript.settle(state.values.get("messages", []))
        self.waiting, self.problems = list(self._turn.waiting), list(self._turn.problems)
        self.transcript.waits(self.waiting)

    async def _stopped(self) -> None:
        try:
            await self._turn.abandon("stopped by the user")
        except AgentError as error:
            await self._failed(str(error))
            return
        self.transcript.failed("Stopped. What was said is kept.")
        self.announcement = "Stopped."
        await self._rest()

    async def _failed(self, text: str) -> None:
        self.transcript.failed(text)
        self.announcement = f"Error: {text}"
        await self._rest()

    async def _rest(self) -> None:
        """After a run that was cut off: what is kept, and whether it waits or can be gone on with."""
        from graphs.turn import is_unfinished

        try:
            state = await self._stored()
        except AgentError as error:
            self.state = "unfinished"
            self.transcript.failed(str(error))
            return
        self.state = "unfinished" if is_unfinished(state) else "idle"
        self._looked(state)


def _waiting_words(count: int) -> str:
    return f"{count} tool call{'s' if count > 1 else ''} waiting for your decision." if count else ""
