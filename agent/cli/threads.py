"""``threads``: the conversations that are kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from agent.app import list_conversations, open_store
from agent.cli.console import ago, note, print_json, print_table, printable
from agent.cli.options import DATABASE, JSON, database_settings

if TYPE_CHECKING:
    from agent.persistence import Conversation

_SHORT = 8


@click.group()
def threads() -> None:
    """List, read, rename, export and delete conversations.

    THREAD is always an id or a beginning of one that no other conversation shares.
    """


@threads.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Show so many at most.")
@click.option("--tag", help="Only those with this tag.")
@DATABASE
@JSON
def list_threads(limit: int, tag: str | None, database: str | None, as_json: bool) -> None:
    """List conversations, the one used last first.

    The status is "idle"; "unfinished" if a process was stopped in an answer, which "resume" finishes; or
    "interrupted" if the conversation waits for a decision.

    \b
    Example:
      vllm-agent threads list --limit 5
    """
    found = list_conversations(database_settings(database), limit=limit, tag=tag)
    if as_json:
        print_json([_record(each) for each in found])
    elif found:
        short = shortest_ids([each.id for each in found])
        rows = [
            [short[each.id], each.title or "", str(each.message_count), ago(each.updated_at), each.status]
            for each in found
        ]
        print_table(["id", "title", "messages", "updated", "status"], rows, stretch=1)
    else:
        note('There is no conversation yet. Start one: vllm-agent run "What is 15 * 23?"')


@threads.command()
@click.argument("thread")
@DATABASE
@JSON
def show(thread: str, database: str | None, as_json: bool) -> None:
    """Print a conversation.

    What was said, which tools were called and what they returned; --json has every detail.

    \b
    Example:
      vllm-agent threads show 3f2a
    """
    with open_store(database_settings(database)) as store:
        found = store.get(thread)
    from agent.cli.view import message_record, print_messages

    if as_json:
        record = {**_record(found), "messages": [message_record(message) for message in found.messages]}
        print_json(record)
        return
    click.secho(printable(found.title or "(no title)"), bold=True)
    click.secho(
        f"{found.id} · {found.message_count} messages · {ago(found.updated_at)} · {found.status}", dim=True
    )
    click.echo()
    print_messages(found.messages)


@threads.command()
@click.argument("thread")
@click.argument("title")
@DATABASE
def rename(thread: str, title: str, database: str | None) -> None:
    """Give a conversation a title.

    An empty one brings its first question back.

    \b
    Example:
      vllm-agent threads rename 3f2a "Multiplication"
    """
    with open_store(database_settings(database)) as store:
        store.rename(thread, title)
        named = store.get(thread)
    note(f"{named.id} is now called {printable(named.title or '')!r}")


@threads.command()
@click.argument("thread")
@click.option(
    "--format",
    "-f",
    default="markdown",
    show_default=True,
    type=click.Choice(["markdown", "json", "jsonl"]),
    help="Markdown to read, JSON for programs, JSONL for data sets.",
)
@click.option(
    "--output", "-o", metavar="FILE", type=click.Path(dir_okay=False, writable=True), help="Write here."
)
@DATABASE
def export(thread: str, format: str, output: str | None, database: str | None) -> None:
    """Write a conversation as Markdown, JSON or JSONL.

    \b
    Example:
      vllm-agent threads export 3f2a -o conversation.md
    """
    with open_store(database_settings(database)) as store:
        text = store.export(thread, format=format)
    if output is None:
        click.echo(text, nl=False)
        return
    with click.open_file(output, "w", encoding="utf-8") as file:
        file.write(text)
    note(f"wrote {output}")


@threads.command()
@click.argument("thread", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--vacuum", is_flag=True, help="Leave nothing of it in the file, which is rewritten.")
@DATABASE
def delete(thread: Sequence[str], yes: bool, vacuum: bool, database: str | None) -> None:
    """Delete conversations with all that is kept of them.

    \b
    Example:
      vllm-agent threads delete 3f2a 77b0
    """
    with open_store(database_settings(database)) as store:
        found = [store.get(each) for each in thread]  # all of them, before the first is gone
        if not yes:
            for each in found:
                note(f"{each.id}  {printable(each.title or '')}  ({each.message_count} messages)")
            if not sys.stdin.isatty():
                raise click.UsageError("Deleting asks first, and nobody can answer here: give --yes.")
            click.confirm("Delete for good?", abort=True, err=True)
        for each in found:
            store.delete(each.id)
        if vacuum:
            store.vacuum()
    note(f"deleted {len(found)}")


def shortest_ids(ids: Sequence[str]) -> dict[str, str]:
    """The beginnings by which these ids can be told apart, eight characters or more."""
    length = _SHORT
    while len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return {each: each[:length] for each in ids}


def _record(conversation: Conversation) -> dict[str, Any]:
    known = asdict(conversation)
    known.pop("messages", None)
    return known
