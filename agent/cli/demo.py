"""``demo``: the whole product in a minute, on the embedded model; nothing in it is scripted."""

from __future__ import annotations

import subprocess
import sys
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from agent.app import open_store
from agent.cli.console import note
from agent.cli.options import DATABASE, database_settings
from agent.cli.session import Session, short_id, started_session
from agent.cli.view import print_messages, rule
from agent.errors import AgentError
from agent.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from agent.persistence import Transcript

_QUESTIONS = ("What is 15 * 23?", "What time is it in Tokyo?")
_LATER = "What was the result of the multiplication?"
_NEEDED_CALLS = 2


@click.command()
@DATABASE
def demo(database: str | None) -> None:
    """Watch an agent call tools, stop, and resume in a new process.

    A real conversation on the embedded model, with real tools and the real database: your own, so that you
    can go on with it afterwards. The model has 135 million parameters and runs on any CPU: it calls tools,
    but do not expect wisdom. Takes a minute or two.

    \b
    Example:
      vllm-agent demo
    """
    # In this process: nothing is to be left behind, and the second part has to be a new engine.
    settings = replace(database_settings(database), warm_minutes=0)
    thread_id = str(uuid.uuid4())
    click.secho(rule("1. An agent that calls tools"), bold=True)
    with started_session(settings, stream=True) as session:
        for question in _QUESTIONS:
            _ask(session, thread_id, question)
    first = _transcript(settings, thread_id)
    _check_calls(first.messages)
    click.secho(rule("2. The process ends; a new one resumes the conversation"), bold=True)
    _resume_in_new_process(thread_id, database)
    last = _transcript(settings, thread_id)
    if last.message_count <= first.message_count:
        raise AgentError(f"the new process added nothing to conversation {thread_id}")
    click.echo()
    click.secho(rule("3. What was kept"), bold=True)
    print_messages(last.messages)
    click.echo()
    click.secho(rule("Try next"), bold=True)
    _suggest(thread_id, database)


def _ask(session: Session, thread_id: str, question: str) -> None:
    click.echo(f"{click.style('You', bold=True)}\n  {question}\n{click.style('Assistant', bold=True)}")
    session.ask(thread_id, question)
    click.echo()


def _check_calls(messages: Sequence[BaseMessage]) -> None:
    results = [message for message in messages if message.type == "tool"]
    good = [message for message in results if getattr(message, "status", "") == "success"]
    if len(good) < _NEEDED_CALLS:
        raise AgentError(
            f"the model was to call {_NEEDED_CALLS} tools or more; it made {len(results)} calls, and "
            f"{len(good)} of them succeeded. Something is wrong with this installation: please report it, "
            "with the output of vllm-agent --debug demo"
        )


def _resume_in_new_process(thread_id: str, database: str | None) -> None:
    command = [sys.executable, "-m", "agent", "resume", thread_id, _LATER, "--in-process"]
    if database:
        command += ["--database", database]
    shown = ["vllm-agent", "resume", short_id(thread_id), f'"{_LATER}"']
    click.secho(f"$ {' '.join(shown)}", fg="cyan")
    sys.stdout.flush()
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own program
    if code:
        raise AgentError(f"the process that was to resume the conversation failed (exit code {code})")


def _transcript(settings: Settings, thread_id: str) -> Transcript:
    with open_store(settings) as store:
        return store.get(thread_id)


def _suggest(thread_id: str, database: str | None) -> None:
    where = f" --database {database}" if database else ""
    lines = (
        (f"vllm-agent chat --thread {short_id(thread_id)}{where}", "go on with this conversation"),
        (f"vllm-agent threads list{where}", "all that are kept"),
        ("vllm-agent tools list", "what the model may call"),
        ("vllm-agent graph draw -o react.png", "how the agent works"),
        ("vllm-agent chat --model Qwen/Qwen3-4B", "a model that can do more, on a GPU"),
    )
    width = max(len(command) for command, _ in lines)
    for command, purpose in lines:
        click.echo(f"  {command:<{width}}  {click.style(purpose, dim=True)}")
    note('This conversation is in your database now; "vllm-agent threads delete" removes it.')
