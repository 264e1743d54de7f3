"""``run`` and ``resume``: one question, one answer."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.app import open_store
from agent.cli.approvals import flagged_decisions, read_at_terminal, say_waiting, waiting_records
from agent.cli.console import note, print_json
from agent.cli.options import IN_PROCESS, JSON, SETTINGS, Asking, agent_options
from agent.cli.session import (
    Session,
    existing_or_new,
    resume_command,
    resume_hint,
    short_id,
    started_session,
    with_graph_of,
)
from agent.cli.view import message_record
from agent.errors import AgentError, ThreadNotFoundError
from agent.settings import Settings

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from agent.cli.turns import Turn
    from graphs.decisions import WaitingCall

_STDIN = "-"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _decision_option(name: str, metavar: str, text: str) -> Callable[[_Command], _Command]:
    """A flag that decides about waiting tool calls; it may be repeated."""
    return click.option(name, multiple=True, metavar=metavar, help=text)


@click.command(cls=Asking, epilog=SETTINGS)
@click.argument("question")
@click.option("--thread", metavar="ID", help="Ask in this conversation. [default: a new one]")
@agent_options
@IN_PROCESS
@JSON
def run(question: str, thread: str | None, settings: Settings, as_json: bool) -> None:
    """Ask one question and print the answer.

    The model may call tools; calls and results are shown on stderr as they happen. The conversation is kept,
    and the command that goes on with it is printed. A QUESTION of "-" is read from stdin.

    The model stays loaded for the next command, in a server that stops after 15 minutes without a question
    ("vllm-agent serve status" shows it, the setting warm_minutes changes the time); a server of yours for the
    same model is used too. With --in-process nothing stays.

    With "--graph approval" every tool call waits for you: a terminal asks, and without one the command says
    what waits and how to decide about it with "vllm-agent resume".

    \b
    Examples:
      vllm-agent run "What is 15 * 23?"
      vllm-agent run --graph approval "What is 15 * 23?"
      vllm-agent run --model Qwen/Qwen3-4B --tools calculator "What is 17.5% of 2340?"
      cat question.txt | vllm-agent run - --json
    """
    question = read_question(question)
    if thread is not None:
        thread = existing_or_new(thread, settings)
        settings = with_graph_of(thread, settings)
    answer_in_terminal(settings, thread or str(uuid.uuid4()), question, as_json=as_json)


@click.command(cls=Asking, epilog=SETTINGS)
@click.argument("thread", required=False)
@click.argument("question", required=False)
@click.option(
    "--last", is_flag=True, help="The conversation used last; then the one argument is the question."
)
@_decision_option("--approve", "ID", "Run this waiting tool call; «all» for every one.")
@_decision_option("--reject", "ID[=REASON]", "Do not run it, and tell the model so; «all» for every one.")
@_decision_option("--edit", "ID=JSON", "Run it with these arguments.")
@_decision_option("--respond", "ID=TEXT", "Do not run it: this text is its result.")
@agent_options
@IN_PROCESS
@JSON
def resume(
    thread: str | None,
    question: str | None,
    last: bool,
    approve: tuple[str, ...],
    reject: tuple[str, ...],
    edit: tuple[str, ...],
    respond: tuple[str, ...],
    settings: Settings,
    as_json: bool,
) -> None:
    """Go on with a conversation, with its whole history.

    THREAD is its id or a beginning of it; without one, the conversation used last goes on. An answer that was
    cut off, even by kill -9, is finished first, and no tool call that had ended runs again. The graph is the
    one that the conversation was last continued with, unless --graph names another. Without a QUESTION, a
    terminal opens "vllm-agent chat" on it. Tool calls that wait for you are decided by flags, by their id or
    a beginning of it, or asked about in a terminal.

    \b
    Examples:
      vllm-agent resume "And half of that?"
      vllm-agent resume 3f2a9c1b "And half of that?"
      vllm-agent resume 3f2a9c1b
      vllm-agent resume 3f2a9c1b --approve all
    """
    flags = {"approve": approve, "reject": reject, "edit": edit, "respond": respond}
    deciding = any(flags.values())
    thread, question = _which(thread, question, last)
    thread_id, unfinished = _find(thread, settings)
    settings = with_graph_of(thread_id, settings)
    if question is None and not deciding and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        from agent.cli.chat import converse

        converse(settings, thread_id)
        return
    if question is None and not unfinished:
        raise click.UsageError(
            f"Conversation {short_id(thread_id)} is finished: give a question, as in "
            f"{resume_hint(thread_id)}, or open it in a terminal."
        )
    asked = question and read_question(question)
    answer_in_terminal(settings, thread_id, asked, flags=flags if deciding else None, as_json=as_json)


def answer_in_terminal(
    settings: Settings,
    thread_id: str,
    question: str | None,
    *,
    flags: Mapping[str, Sequence[str]] | None = None,
    as_json: bool = False,
) -> None:
    """Start the engine, answer, print, and say how to go on.

    Args:
        settings: What to run.
        thread_id: The conversation; a new one if there is none of that id.
        question: ``None`` to finish what was left unfinished.
        flags: Decisions about tool calls that wait, as they were typed.
        as_json: Print all messages in the place of the answer.
    """
    try:
        with started_session(settings, stream=sys.stdout.isatty() and not as_json) as session:
            turn = session.turn(thread_id)
            read = read_at_terminal if not as_json and sys.stdin.isatty() and sys.stderr.isatty() else None
            answer = session.settle(turn, _decided(turn, flags), read=read)
            if question is not None:
                answer = session.settle(turn, turn.ask(question), read=read)
            _print(session, thread_id, answer, turn.waiting, as_json=as_json)
    except KeyboardInterrupt:
        note(f"interrupted; what was said is kept: {resume_hint(thread_id)}")
        raise
    if turn.waiting:
        say_waiting(turn.waiting, resume_command(thread_id))
    else:
        note(f"conversation {short_id(thread_id)} · go on: {resume_hint(thread_id)}")


async def _decided(turn: Turn, flags: Mapping[str, Sequence[str]] | None) -> AIMessage | None:
    """Finish what an earlier process left, with the decisions given as flags."""
    answer = await turn.finish()
    if flags is not None:
        answer = await turn.decide(flagged_decisions(flags, turn.waiting))
    return answer


def _print(
    session: Session,
    thread_id: str,
    answer: AIMessage | None,
    waiting: Sequence[WaitingCall],
    *,
    as_json: bool,
) -> None:
    text = answer.text.strip() if answer else ""
    if as_json:
        transcript = session.app.store.get(thread_id)
        record: dict[str, Any] = {
            "thread_id": transcript.id,
            "answer": text,
            "messages": [message_record(message) for message in transcript.messages],
        }
        print_json(record | ({"waiting": waiting_records(waiting)} if waiting else {}))
    elif not session.streams and not waiting:
        click.echo(text)


def read_question(text: str) -> str:
    """The question itself, from stdin if ``text`` is a dash."""
    try:
        question = (sys.stdin.read() if text == _STDIN else text).strip()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"The question on stdin is no text: {error}") from error
    if not question:
        raise click.UsageError("The question is empty.")
    return question


def _which(thread: str | None, question: str | None, last: bool) -> tuple[str | None, str | None]:
    """Sort out the two arguments, of which either may be left out."""
    if last:
        if question is not None:
            raise click.UsageError("--last takes a question only, and there are two arguments.")
        return None, thread
    if thread is not None and question is None and (thread == _STDIN or len(thread.split()) > 1):
        return None, thread  # no id has a space in it
    return thread, question


def _find(thread: str | None, settings: Settings) -> tuple[str, bool]:
    with open_store(settings) as store:
        if thread is None:
            found = store.latest()
            if found is None:
                raise AgentError('there is no conversation yet; start one: vllm-agent run "What is 15 * 23?"')
        else:
            try:
                found = store.get(thread)
            except ThreadNotFoundError as error:
                hint = f' (To ask it in the last conversation: vllm-agent resume --last "{thread}")'
                raise ThreadNotFoundError(f"{error}{hint}") from error
    return found.id, found.status != "idle"
