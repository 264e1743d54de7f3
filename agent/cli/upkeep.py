"""``threads prune``, ``size`` and ``doctor``: what is kept, how much it is, and whether it is sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from agent.app import open_store
from agent.cli.console import note, print_json, print_table, printable
from agent.cli.conversations import (
    VACUUM,
    YES,
    Age,
    Size,
    ask_first,
    bytes_in_words,
    shortest_ids,
    tell_which,
)
from agent.cli.options import DATABASE, JSON, database_settings

if TYPE_CHECKING:
    from agent.persistence import Problem

_SHOWN = 20


@click.command()
@click.option("--older-than", type=Age(), metavar="AGE|DATE", help="Not used for so long: 12h, 30d, 2w, 1y.")
@click.option("--keep", type=click.IntRange(0), metavar="N", help="Beyond the N that were used last.")
@click.option(
    "--max-size", type=Size(), metavar="SIZE", help="The longest unused, until the rest fits in 500MB, 2GB."
)
@click.option("--history-only", is_flag=True, help="Keep the conversations, and delete their earlier states.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@YES
@VACUUM
@DATABASE
@JSON
def prune(
    older_than: timedelta | datetime | None,
    keep: int | None,
    max_size: int | None,
    history_only: bool,
    dry_run: bool,
    yes: bool,
    vacuum: bool,
    database: str | None,
    as_json: bool,
) -> None:
    """Delete conversations by age, number or size; given several, those that meet all.

    \b
    Examples:
      vllm-agent threads prune --older-than 90d --dry-run
      vllm-agent threads prune --keep 100 --vacuum
      vllm-agent threads prune --max-size 500MB
      vllm-agent threads prune --older-than 1d --history-only
    """
    if older_than is None and keep is None and max_size is None:
        raise click.UsageError("Which? Give --older-than, --keep or --max-size.")
    conditions = {"older_than": older_than, "keep": keep, "max_bytes": max_size}
    with open_store(database_settings(database)) as store:
        chosen = store.prune(**conditions, dry_run=True)  # type: ignore[arg-type]
        if not dry_run and chosen:
            if not yes:
                tell_which([store.entry(each) for each in chosen[:_SHOWN]])
                if len(chosen) > _SHOWN:
                    note(f"… and {len(chosen) - _SHOWN} more")
            what = "the earlier states of" if history_only else ""
            ask_first(" ".join(f"Delete {what} {len(chosen)} conversations for good?".split()), yes=yes)
            if not yes:  # one that was gone on with meanwhile is no longer meant
                still = store.prune(**conditions, dry_run=True)  # type: ignore[arg-type]
                chosen = [each for each in chosen if each in still]
            store.prune_these(chosen, history_only=history_only)
        if vacuum and not dry_run:
            store.vacuum()
    if as_json:
        print_json({"pruned": chosen, "dry_run": dry_run})
        return
    for each in chosen:
        click.echo(each)
    note(f"{'would prune' if dry_run else 'pruned'} {len(chosen)}")


@click.command()
@DATABASE
@JSON
def size(database: str | None, as_json: bool) -> None:
    """Say what the conversations take up, and which are the largest.

    \b
    Example:
      vllm-agent threads size
    """
    with open_store(database_settings(database)) as store:
        report = store.size()
        titles = {thread_id: store.title(thread_id) for thread_id, _ in report.largest}
    if as_json:
        largest = [{"id": each, "title": titles[each], "bytes": count} for each, count in report.largest]
        print_json({**asdict(report), "largest": largest})
        return
    click.echo(
        f"{bytes_in_words(report.bytes_on_disk)} on disk: {report.conversations} conversations with "
        f"{report.checkpoints} checkpoints"
    )
    if report.largest:
        click.echo()
        short = shortest_ids([each for each, _ in report.largest])
        rows = [[short[each], titles[each] or "", bytes_in_words(count)] for each, count in report.largest]
        print_table(["largest", "title", "size"], rows, stretch=1)


@click.command()
@click.option("--mend", is_flag=True, help="Mend what can be mended; what was said is never changed.")
@DATABASE
@JSON
@click.pass_context
def doctor(context: click.Context, mend: bool, database: str | None, as_json: bool) -> None:
    """Look for what is wrong with the conversations: the file, lost values, the search index, the list.

    It also tells which conversations stopped in the middle of an answer, have tool calls without a result, or
    have calls whose outcome nobody knows because their process is gone. The exit code is 1 if something is
    broken and was not mended.

    \b
    Examples:
      vllm-agent threads doctor
      vllm-agent threads doctor --mend
    """
    with open_store(database_settings(database)) as store:
        problems = store.doctor(mend=mend)
    if as_json:
        print_json([{**asdict(each), "is_wrong": each.is_wrong} for each in problems])
    elif problems:
        _print(problems)
    else:
        note("Everything is as it should be.")
    if any(each.is_wrong for each in problems):
        context.exit(1)


def _print(problems: Sequence[Problem]) -> None:
    for each in problems:
        color = "red" if each.is_wrong else "green" if each.mended else "yellow"
        where = f"{each.thread_id}: " if each.thread_id else ""
        click.secho(f"{each.kind:<11}", fg=color, nl=False)
        click.echo(printable(f"{where}{each.what}"))
        click.secho(f"{'':<11}{'mended' if each.mended else printable(each.advice)}", dim=True)
