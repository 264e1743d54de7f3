"""``threads export``, ``import`` and ``migrate``: conversations into files and databases, and out of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.app import open_store
from agent.cli.console import note, print_json, printable, write_file
from agent.cli.options import DATABASE, JSON, database_settings

if TYPE_CHECKING:
    from agent.persistence import ConversationStore, Imported

_SQLITE = b"SQLite format 3\0"


@click.command()
@click.argument("thread")
@click.option(
    "--format",
    "-f",
    default="markdown",
    show_default=True,
    type=click.Choice(["markdown", "json", "jsonl"]),
    help="Markdown to read, JSON to import again, JSONL for data sets.",
)
@click.option(
    "--output", "-o", metavar="FILE", type=click.Path(dir_okay=False, writable=True), help="Write here."
)
@DATABASE
def export(thread: str, format: str, output: str | None, database: str | None) -> None:
    """Write a conversation as Markdown, JSON or JSONL.

    JSON keeps everything that "import" needs; JSONL keeps the messages, one a line.

    \b
    Examples:
      vllm-agent threads export 3f2a -o conversation.md
      vllm-agent threads export 3f2a -f json -o conversation.json
    """
    with open_store(database_settings(database)) as store:
        text = store.export(thread, format=format)
    if output is None:
        click.echo(text, nl=False)
        return
    write_file(output, text.encode())
    note(f"wrote {output}")


@click.command("import")
@click.argument("source", metavar="FILE|URL")
@click.option("--id", "new_id", metavar="ID", help="Id of a conversation from JSON. [default: a new one]")
@DATABASE
@JSON
@click.pass_context
def import_(
    context: click.Context, source: str, new_id: str | None, database: str | None, as_json: bool
) -> None:
    """Take conversations over from a file or from a database of LangGraph's own savers.

    The source is JSON or JSONL from "export" ("-" reads it from standard input), a file of
    langgraph-checkpoint-sqlite, or the address of a database of langgraph-checkpoint-postgres. The source is
    only read, and a conversation that is here already is left as it is. Prints the ids of new ones. One that
    is damaged is not taken at all, the others are, and the exit code is 1.

    \b
    Examples:
      vllm-agent threads import conversation.json
      vllm-agent threads import checkpoints.sqlite
      vllm-agent threads import postgresql://user@host/name
    """
    with open_store(database_settings(database)) as store:
        found = _import(store, source, new_id)
    if as_json:
        failed = [{"id": each, "why": why} for each, why in found.failed.items()]
        print_json({"imported": found.imported, "skipped": found.skipped, "failed": failed})
    else:
        _tell(found)
    if found.failed:
        context.exit(1)


def _tell(found: Imported) -> None:
    for each in found.imported:
        click.echo(each)
    for each, why in found.failed.items():
        note(printable(f"{each} was not taken: {why}"))
    lost = f", could not take {len(found.failed)}" if found.failed else ""
    left = f", left {len(found.skipped)} that are here already" if found.skipped else ""
    note(f"imported {len(found.imported)}{lost}{left}")


@click.command()
@click.argument("target", metavar="PATH|URL")
@DATABASE
@JSON
def migrate(target: str, database: str | None, as_json: bool) -> None:
    """Copy all conversations into another database, such as from the file to PostgreSQL.

    With their whole history, tags and tool journal. Nothing is deleted here, and a conversation that is there
    already is left as it is, so it can be run again. The tables of an older version need no command: they
    are brought up to date when they are opened.

    \b
    Example:
      vllm-agent threads migrate postgresql://user@host/name
    """
    with open_store(database_settings(database)) as store, open_store(database_settings(target)) as other:
        moved = store.copy_to(other)
    if as_json:
        print_json({"copied": moved.copied, "skipped": moved.skipped})
        return
    for each in moved.copied:
        click.echo(each)
    left = f", left {len(moved.skipped)} that are there already" if moved.skipped else ""
    note(f"copied {len(moved.copied)}{left}")


def _import(store: ConversationStore, source: str, new_id: str | None) -> Imported:
    from agent.persistence import Imported, import_langgraph_postgres, import_langgraph_sqlite

    if "://" in source:
        return import_langgraph_postgres(store.saver, source)
    if source != "-" and not Path(source).is_file():
        raise click.BadParameter(f"there is no file {source!r}.", param_hint="FILE|URL")
    if source != "-" and _begins_with(source, _SQLITE):
        return import_langgraph_sqlite(store.saver, source)
    try:
        with click.open_file(source, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"{source!r} is neither JSON nor a SQLite file.", param_hint="FILE|URL"
        ) from error
    return Imported(imported=(store.import_(text, new_id=new_id),), skipped=())


def _begins_with(path: str, beginning: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(beginning)) == beginning
