"""``threads``: the conversations that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from agent.app import list_conversations, open_store
from agent.cli.console import ago, note, print_json, print_table, printable
from agent.cli.conversations import VACUUM, YES, ask_first, record, shortest_ids, tell_which
from agent.cli.exchange import export, import_, migrate
from agent.cli.history import diff, fork, history, rewind
from agent.cli.options import DATABASE, JSON, database_settings
from agent.cli.upkeep import doctor, prune, size

__all__ = ["shortest_ids", "threads"]


class _InOrder(click.Group):
    """Lists its commands in the order in which they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def threads() -> None:
    """Find, read, fork, export, prune and mend conversations.

    THREAD is always an id or a beginning of one that no other conversation shares; CHECKPOINT is a number
    from "threads history", an id or a beginning of one, or "latest".

    \b
    To find and read:      list, search, show, history, diff
    To name and sort:      rename, tag, untag
    To go back or aside:   fork, rewind
    To take along:         export, import, migrate
    To clear up:           delete, prune, size, doctor
    """


@threads.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Show so many at most.")
@click.option("--offset", default=0, type=click.IntRange(0), help="Leave out so many of the first.")
@click.option("--tag", help="Only those with this tag.")
@DATABASE
@JSON
def list_threads(limit: int, offset: int, tag: str | None, database: str | None, as_json: bool) -> None:
    """List conversations, the one used last first.

    The status is "idle"; "unfinished" if a process was stopped in an answer, which "resume" finishes; or
    "interrupted" if the conversation waits for a decision.

    \b
    Examples:
      vllm-agent threads list --limit 5
      vllm-agent threads list --limit 5 --offset 5     the next five
      vllm-agent threads list --tag work
    """
    found = list_conversations(database_settings(database), limit=limit, offset=offset, tag=tag)
    if as_json:
        print_json([record(each) for each in found])
    elif found:
        short = shortest_ids([each.id for each in found])
        header = ["id", "title", "messages", "updated", "status"]
        rows = [
            [short[each.id], each.title or "", str(each.message_count), ago(each.updated_at), each.status]
            for each in found
        ]
        if any(each.tags for each in found):
            header.insert(2, "tags")
            for row, each in zip(rows, found, strict=True):
                row.insert(2, " ".join(each.tags))
        print_table(header, rows, stretch=1)
    elif tag is not None:
        note(f"No conversation has the tag {printable(tag)!r}; `threads tag` gives it to one.")
    else:
        note('There is no conversation yet. Start one: vllm-agent run "What is 15 * 23?"')


@threads.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Show so many at most.")
@DATABASE
@JSON
def search(words: Sequence[str], limit: int, database: str | None, as_json: bool) -> None:
    """Find messages that have all of these words, the best first.

    Case and accents make no difference, and the last word may be a beginning; in Chinese and other scripts
    without blanks, words are found anywhere. Conversations that were opened with an encryption key cannot be
    searched.

    \b
    Examples:
      vllm-agent threads search capital france
      vllm-agent threads search multipl                finds "multiplication" too
    """
    with open_store(database_settings(database)) as store:
        found = store.search(" ".join(words), limit=limit)
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        short = shortest_ids([each.id for each in found])
        rows = [[short[each.id], str(each.position + 1), each.role, each.excerpt] for each in found]
        print_table(["id", "message", "role", "excerpt"], rows, stretch=3)
    else:
        note("Nothing was found.")


@threads.command()
@click.argument("thread")
@click.option("--at", "checkpoint", metavar="CHECKPOINT", help="As it was then. [default: as it is now]")
@DATABASE
@JSON
def show(thread: str, checkpoint: str | None, database: str | None, as_json: bool) -> None:
    """Print a conversation.

    What was said, which tools were called and what they returned; --json has every detail.

    \b
    Examples:
      vllm-agent threads show 3f2a
      vllm-agent threads show 3f2a --at 4              as it was at the fourth checkpoint
    """
    with open_store(database_settings(database)) as store:
        at = None if checkpoint is None else store.resolve_checkpoint(thread, checkpoint)
        found = store.get(thread, checkpoint_id=at)
    from agent.cli.view import message_record, print_messages

    if as_json:
        print_json({**record(found), "messages": [message_record(message) for message in found.messages]})
        return
    click.secho(printable(found.title or "(no title)"), bold=True)
    click.secho(
        f"{found.id} · {found.message_count} messages · {ago(found.updated_at)} · {found.status}", dim=True
    )
    click.echo()
    print_messages(found.messages)


threads.add_command(history)
threads.add_command(diff)


@threads.command()
@click.argument("thread")
@click.argument("title")
@DATABASE
@JSON
def rename(thread: str, title: str, database: str | None, as_json: bool) -> None:
    """Give a conversation a title.

    Without one it is called by its first question; an empty title brings that back.

    \b
    Example:
      vllm-agent threads rename 3f2a "Multiplication"
    """
    with open_store(database_settings(database)) as store:
        store.rename(thread, title)
        named = store.entry(thread)
    if as_json:
        print_json(record(named))
    else:
        note(f"{named.id} is now called {printable(named.title or '')!r}")


@threads.command()
@click.argument("thread")
@click.argument("tags", nargs=-1, required=True)
@DATABASE
@JSON
def tag(thread: str, tags: Sequence[str], database: str | None, as_json: bool) -> None:
    """Give a conversation tags, by which "list --tag" finds it.

    \b
    Example:
      vllm-agent threads tag 3f2a work urgent
    """
    _change_tags(thread, tags, (), database, as_json=as_json)


@threads.command()
@click.argument("thread")
@click.argument("tags", nargs=-1, required=True)
@DATABASE
@JSON
def untag(thread: str, tags: Sequence[str], database: str | None, as_json: bool) -> None:
    """Take tags away from a conversation.

    \b
    Example:
      vllm-agent threads untag 3f2a urgent
    """
    _change_tags(thread, (), tags, database, as_json=as_json)


threads.add_command(fork)
threads.add_command(rewind)
threads.add_command(export)
threads.add_command(import_)
threads.add_command(migrate)


@threads.command()
@click.argument("thread", nargs=-1, required=True)
@YES
@VACUUM
@DATABASE
@JSON
def delete(thread: Sequence[str], yes: bool, vacuum: bool, database: str | None, as_json: bool) -> None:
    """Delete conversations with all that is kept of them.

    \b
    Example:
      vllm-agent threads delete 3f2a 77b0
    """
    with open_store(database_settings(database)) as store:
        # All of them, before the first is gone; one that was named twice is gone once.
        found = list({each.id: each for each in map(store.entry, thread)}.values())
        if not yes:
            tell_which(found)
        ask_first("Delete for good?", yes=yes)
        for each in found:
            store.delete(each.id)
        if vacuum:
            store.vacuum()
    if as_json:
        print_json([record(each) for each in found])
    else:
        note(f"deleted {len(found)}")


threads.add_command(prune)
threads.add_command(size)
threads.add_command(doctor)


def _change_tags(
    thread: str, add: Sequence[str], remove: Sequence[str], database: str | None, *, as_json: bool
) -> None:
    with open_store(database_settings(database)) as store:
        store.tag(thread, *add)
        store.untag(thread, *remove)
        found = store.entry(thread)
    if as_json:
        print_json(record(found))
    else:
        note(f"{found.id} has the tags: {printable(', '.join(found.tags)) or 'none'}")
