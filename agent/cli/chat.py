"""``chat``: a conversation in the terminal.

The engine starts while the first question is being typed. Ctrl-C stops an answer and nothing else: what was
said so far is kept, and the conversation stays well formed for the next question.
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import click

from agent.app import App, graph_of, open_store
from agent.cli.approvals import say_waiting
from agent.cli.console import ago, note, print_table, stages, tell_error
from agent.cli.debugging import show_requests
from agent.cli.input import LineReader
from agent.cli.options import IN_PROCESS, SETTINGS, agent_options
from agent.cli.session import (
    Session,
    describe,
    existing_or_new,
    open_session,
    prepare_model,
    resume_command,
    resume_hint,
    short_id,
    with_graph_of,
)
from agent.cli.threads import shortest_ids
from agent.errors import AgentError, ThreadNotFoundError
from agent.settings import Settings

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from agent.cli.turns import Turn
    from agent.engines.base import EngineInfo

_HELP = """\
/help          this list
/new           begin a new conversation
/threads       the last conversations
/open ID       go on with one of them
/history       what was said in this conversation
/tools         what the model may call
/quit          leave (or Ctrl-D)

Ctrl-C stops an answer. A line that ends in a backslash goes on in the
next; a paste of several lines is one question. Begin with a space to ask
a question that begins with a slash."""
_SHOWN_THREADS = 10
_LOOK = 0.1  # seconds between two looks at the engine that starts


@click.command(epilog=SETTINGS)
@click.option("--thread", metavar="ID", help="Go on with this conversation.")
@click.option("--last", is_flag=True, help="Go on with the conversation used last.")
@agent_options
@IN_PROCESS
def chat(thread: str | None, last: bool, settings: Settings) -> None:
    """Talk with an agent in the terminal.

    Answers appear while they are made, tool calls and results as they happen. Ctrl-C stops an answer and
    keeps the conversation; /help lists what else there is. Questions may also come from a pipe, one a line.
    The model stays loaded for a while afterwards, as with "vllm-agent run".

    \b
    Examples:
      vllm-agent chat
      vllm-agent chat --last
      vllm-agent chat --model Qwen/Qwen3-4B --tools calculator,current_time
    """
    if last and thread is not None:
        raise click.UsageError("--thread and --last contradict each other.")
    if thread is not None:
        thread = existing_or_new(thread, settings)
    elif last:
        with open_store(settings) as store:
            found = store.latest()
        if found is None:
            raise AgentError("there is no conversation yet; start one: vllm-agent chat")
        thread = found.id
    if thread is not None:
        settings = with_graph_of(thread, settings)
    converse(settings, thread)


def converse(settings: Settings, thread_id: str | None) -> None:
    """Talk until the person leaves.

    Args:
        settings: The agent.
        thread_id: The conversation to go on with; ``None`` for a new one.
    """
    prepare_model(settings, in_process=not settings.warm_minutes)
    engine = _BackgroundStart()
    with open_session(settings, stream=True, on_stage=engine) as session:
        engine.begin(session.app)
        reader = LineReader(history=settings.directory / "chat_history")
        with reader:
            _Chat(session, engine, reader).talk(thread_id)


class _BackgroundStart:
    """Starts the engine on a thread, and shows its stages only once somebody waits for it."""

    def __init__(self) -> None:
        self._stage = "preparing"
        self._info: EngineInfo | None = None
        self._error: Exception | None = None
        self._announced = False

    def __call__(self, stage: str) -> None:
        self._stage = stage

    def begin(self, app: App) -> None:
        """Start, and return at once."""
        self._app = app
        self._thread = threading.Thread(target=self._start, name="engine-start", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it runs, and say once what runs.

        Raises:
            AgentError: It does not start.
        """
        with stages("starting the engine") as shown:
            last = None
            while self._thread.is_alive():
                if self._stage != last:
                    shown(last := self._stage)
                self._thread.join(_LOOK)
        if self._error is not None:
            raise self._error
        if self._info is not None and not self._announced:
            note(describe(self._info, self._app))
            self._announced = True

    def _start(self) -> None:
        try:
            self._info = self._app.start()
            show_requests()
        except Exception as error:  # carried to the thread that waits
            self._error = error


class _Chat:
    """The loop of questions and answers."""

    def __init__(self, session: Session, engine: _BackgroundStart, reader: LineReader) -> None:
        self._session = session
        self._engine = engine
        self._reader = reader
        self._store = session.app.store
        self._thread_id = str(uuid.uuid4())
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: click.echo(_HELP),
            "history": lambda _: self._show_history(),
            "new": lambda _: self._begin(None),
            "open": self._open,
            "threads": lambda _: self._show_threads(),
            "tools": lambda _: self._show_tools(),
        }

    def talk(self, thread_id: str | None) -> None:
        """Talk until the person leaves."""
        self._begin(thread_id)
        interrupted = False
        while True:
            try:
                text = self._reader.read()
            except EOFError:
                break
            except KeyboardInterrupt:
                if interrupted:
                    break
                interrupted = True
                note("(Ctrl-C again or Ctrl-D leaves)")
                continue
            interrupted = False
            if text.strip() in ("/quit", "/exit"):
                break
            if text.startswith("/"):
                self._obey(text)
            elif text.strip():
                self._answer(text.strip())
        if self._exists(self._thread_id):
            note(f"conversation {short_id(self._thread_id)} is kept · go on: {self._hint()}")

    def _begin(self, thread_id: str | None) -> None:
        self._thread_id = thread_id or str(uuid.uuid4())
        if thread_id is None or not self._exists(thread_id):
            note("new conversation · /help lists commands · Ctrl-C stops an answer, Ctrl-D leaves")
            return
        found = self._store.get(thread_id)
        note(f"conversation {short_id(found.id)} · {found.message_count} messages · {ago(found.updated_at)}")
        from agent.cli.view import print_messages
        from graphs.turn import current_turn

        last = len(current_turn(found.messages)) + 1
        print_messages(found.messages[-last:])
        if found.status != "idle":
            note("the last answer was not finished")
            self._run(lambda turn: turn.finish())

    def _answer(self, question: str) -> None:
        self._run(lambda turn: turn.ask(question))

    def _run(self, work: Callable[[Turn], Coroutine[None, None, AIMessage | None]]) -> None:
        turn = self._session.turn(self._thread_id)
        try:
            self._engine.wait()
            read = self._reader.answer if self._reader.interactive else None
            self._session.settle(turn, work(turn), read=read)
            if turn.waiting:
                say_waiting(turn.waiting, resume_command(self._thread_id))
        except KeyboardInterrupt:
            if self._abandon(turn, "stopped by the user"):
                note("stopped; what was said is kept")
        except AgentError as error:
            self._tell(error)
            self._abandon(turn, "no answer, because of an error")

    def _abandon(self, turn: Turn, reason: str) -> bool:
        """Keep what was said, and say whether it is; Ctrl-C counts for nothing meanwhile."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # or it would be left half kept
        try:
            self._session.run(turn.abandon(reason))
            return True
        except AgentError as error:
            self._tell(error)
            return False
        finally:
            signal.signal(signal.SIGINT, before)

    def _tell(self, error: AgentError) -> None:
        """Show an error to the person who is there, and go on; a pipe ends with it."""
        if not self._reader.interactive:
            raise error
        tell_error(str(error))

    def _obey(self, line: str) -> None:
        name, _, argument = line[1:].partition(" ")
        command = self._commands.get(name.strip())
        if command is None:
            note(f"there is no command /{name}; /help lists them")
            return
        try:
            command(argument.strip())
        except AgentError as error:
            self._tell(error)

    def _open(self, prefix: str) -> None:
        if not prefix:
            note("which one? /threads lists them")
            return
        try:
            thread_id = self._store.resolve(prefix)
        except ThreadNotFoundError as error:
            note(str(error))
            return
        settings = self._session.app.settings
        graph = graph_of(settings, thread_id)
        if graph not in (None, settings.graph) and self._store.get(thread_id).status != "idle":
            command = resume_command(thread_id)
            note(f"the graph {graph!r} has not finished its last answer there; let it: {command}")
            return
        self._begin(thread_id)

    def _show_threads(self) -> None:
        found = self._store.list(limit=_SHOWN_THREADS)
        short = shortest_ids([each.id for each in found])
        print_table(
            ["id", "title", "updated"],
            [[short[each.id], each.title or "", ago(each.updated_at)] for each in found],
            stretch=1,
        )

    def _show_tools(self) -> None:
        rows = [[tool.name, tool.description.strip().splitlines()[0]] for tool in self._session.app.tools]
        print_table(["tool", "what it does"], rows, stretch=1)

    def _show_history(self) -> None:
        from agent.cli.view import print_messages

        if self._exists(self._thread_id):
            print_messages(self._store.get(self._thread_id).messages)
        else:
            note("nothing was said yet")

    def _exists(self, thread_id: str) -> bool:
        try:
            return self._store.resolve(thread_id) == thread_id
        except ThreadNotFoundError:
            return False

    def _hint(self) -> str:
        return resume_hint(self._thread_id)
