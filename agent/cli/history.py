"""``threads history``, ``diff``, ``fork`` and ``rewind``: conversations as they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agent.app import open_store
from agent.cli.console import ago, note, print_json, print_table, shorten, terminal_width
from agent.cli.conversations import YES, ask_first, brief, record
from agent.cli.options import DATABASE, JSON, database_settings

if TYPE_CHECKING:
    from agent.persistence import Difference, Moment

_SIGNS = {"+": "green", "-": "red", "~": "yellow"}


@click.command()
@click.argument("thread")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Show so many at most.")
@DATABASE
@JSON
def history(thread: str, limit: int, database: str | None, as_json: bool) -> None:
    """List the checkpoints of a conversation, the newest first.

    There is one after every step of the graph. "show --at", "diff", "fork --at" and "rewind" take their
    numbers.

    \b
    Example:
      vllm-agent threads history 3f2a
    """
    with open_store(database_settings(database)) as store:
        found = store.history(thread, limit=limit)
    if as_json:
        print_json([_moment(each) for each in found])
        return
    rows = [
        [
            str(each.number),
            ago(each.created_at),
            each.source or "",
            str(each.message_count),
            brief(each.last) if each.last else "",
            each.checkpoint_id,
        ]
        for each in found
    ]
    print_table(["#", "when", "by", "messages", "last message", "checkpoint"], rows, stretch=4)


@click.command()
@click.argument("thread")
@click.argument("before", metavar="CHECKPOINT")
@click.argument("after", metavar="[CHECKPOINT]", default="latest")
@DATABASE
@JSON
def diff(thread: str, before: str, after: str, database: str | None, as_json: bool) -> None:
    """Show what is different between two checkpoints, the second being the latest if not given.

    Messages that came (+), went (-) and changed (~), and other values of the state.

    \b
    Examples:
      vllm-agent threads diff 3f2a 2                   what has happened since
      vllm-agent threads diff 3f2a 2 5
    """
    with open_store(database_settings(database)) as store:
        ids = [store.resolve_checkpoint(thread, each) for each in (before, after)]
        found = store.diff(thread, *ids)
    if as_json:
        print_json(_difference(found))
        return
    lines = [("+", brief(each)) for each in found.added]
    lines += [("-", brief(each)) for each in found.removed]
    lines += [("~", f"{brief(old)} ⇒ {brief(new)}") for old, new in found.changed]
    lines += [("~", f"{name}: {_short(old)} ⇒ {_short(new)}") for name, (old, new) in found.values.items()]
    for sign, text in lines:
        click.secho(f"{sign} {shorten(text, terminal_width() - 2)}", fg=_SIGNS[sign])
    if not lines:
        note("There is no difference.")


@click.command()
@click.argument("thread")
@click.option("--at", "checkpoint", metavar="CHECKPOINT", help="As it was then. [default: as it is now]")
@click.option("--id", "new_id", metavar="ID", help="Id of the copy. [default: a new one]")
@click.option("--title", help="Title of the copy. [default: the same]")
@DATABASE
@JSON
def fork(
    thread: str,
    checkpoint: str | None,
    new_id: str | None,
    title: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Copy a conversation, as it is or as it was, to go on in another way; prints the copy's id.

    \b
    Examples:
      vllm-agent threads fork 3f2a --title "Another try"
      vllm-agent threads fork 3f2a --at 4
    """
    with open_store(database_settings(database)) as store:
        at = None if checkpoint is None else store.resolve_checkpoint(thread, checkpoint)
        made = store.fork(thread, checkpoint_id=at, new_id=new_id)
        if title is not None:
            store.rename(made, title)
        found = store.entry(made)
    if as_json:
        print_json(record(found))
    else:
        click.echo(made)
        note(f"{found.message_count} messages; go on with: vllm-agent resume {made}")


@click.command()
@click.argument("thread")
@click.argument("checkpoint")
@YES
@DATABASE
@JSON
def rewind(thread: str, checkpoint: str, yes: bool, database: str | None, as_json: bool) -> None:
    """Go back to a checkpoint, for good: what came after it is deleted.

    To keep both, use "fork --at".

    \b
    Example:
      vllm-agent threads rewind 3f2a 4
    """
    with open_store(database_settings(database)) as store:
        at = store.resolve_checkpoint(thread, checkpoint)
        now, then = store.entry(thread), store.get(thread, checkpoint_id=at)
        lost = now.message_count - then.message_count
        ask_first(f"Delete what came after, {max(lost, 0)} of {now.message_count} messages?", yes=yes)
        store.rewind(now.id, at)
        found = store.get(now.id)
    if as_json:
        print_json(record(found))
    else:
        note(f"{found.id} has {found.message_count} messages again")


def _moment(moment: Moment) -> dict[str, Any]:
    from agent.cli.view import message_record

    known = {name: value for name, value in vars(moment).items() if name != "last"}
    return {**known, "last": message_record(moment.last) if moment.last else None}


def _difference(found: Difference) -> dict[str, Any]:
    from agent.cli.view import message_record

    return {
        "before": found.before,
        "after": found.after,
        "added": [message_record(each) for each in found.added],
        "removed": [message_record(each) for each in found.removed],
        "changed": [[message_record(old), message_record(new)] for old, new in found.changed],
        "values": {name: list(pair) for name, pair in found.values.items()},
    }


def _short(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 60)
